"""Decoding of brain recordings: fMRI to images, MEG and EEG to images and speech. Nothing is here yet."""
