"""Runs of a headband in the form in which they are published: small, with a response that tells the classes apart."""

import json

import numpy as np

SFREQ = 256


def write_task(folder, file, *, subjects=((1, 2),), n_events=24, spacing_s=1.2, strength=20.0, seed=0):
    """Write (subject, number of runs) pairs, microvolts; class 2 has a bump 0.2 s after its marker."""
    rng = np.random.default_rng(seed)
    stored, rows = {}, []
    for subject, n_runs in subjects:
        for _ in range(n_runs):
            number, n = len(rows), round((n_events * spacing_s + 4) * SFREQ)
            data, marker = rng.normal(0, 10, (n, 5)).astype(np.float32), np.zeros(n, dtype=np.int16)
            codes = rng.permutation(1 + np.arange(n_events) % 2)
            for place, code in zip(
                round(0.5 * SFREQ) + np.arange(n_events) * round(spacing_s * SFREQ), codes, strict=True
            ):
                marker[place] = code
                if code == 2:
                    data[place + 35 : place + 75] += strength * np.hanning(40)[:, None] * [1, 0.3, 0.3, 1, 0]
            stored |= {f"eeg_{number:03d}": data, f"marker_{number:03d}": marker}
            counts = {str(code): int((marker == code).sum()) for code in (0, 1, 2)}
            rows.append({"subject": subject, "session": 1, "file": f"{number}.csv", "n": n, "markers": counts})
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / file, meta=np.array(json.dumps(rows)), **stored)
