"""From fMRI to the seen image."""
