#!/usr/bin/env bash
# A torch DataLoader with workers gives other values than one without: a lazy conjugation is lost between processes.
#
# Version:  torch 2.13.0.
# Input:    a dataset whose items are x.conj() of complex tensors, as channels are that somebody conjugates. torch sets
#           a bit instead of touching the memory (`is_conj()`), and keeps it in pickle, copy.deepcopy and torch.save.
# Expected: the values do not depend on `num_workers`; or an error, as `.numpy()` and DLPack raise for such a tensor.
# Seen:     without workers x.conj() arrives, with one worker x. Any torch.multiprocessing queue does it: it sends
#           storage, offset, size and stride, and not the bits. The bit of a negated view, as x.conj().imag has it, is
#           lost as well. With `batch_size` set, collation stacks in memory to be shared and raises instead.
# Remedy:   y.resolve_conj().resolve_neg() in the dataset, and before a tensor is put into a queue.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat >"$folder/script.py" <<'PYTHON'
import torch
from torch.utils.data import DataLoader, Dataset


class Channels(Dataset):
    """Two conjugated numbers, and the imaginary part of their conjugate."""

    def __getitem__(self, i):
        x = torch.tensor([1 + 2j, 3 - 4j])[i : i + 1]
        return x.conj(), x.conj().imag, x.conj().resolve_conj()

    def __len__(self):
        return 2


if __name__ == "__main__":
    assert torch.__version__.startswith("2.13.0")
    items = {}
    for workers in (0, 1):
        loader = DataLoader(Channels(), batch_size=None, num_workers=workers)
        items[workers] = [[part.tolist()[0] for part in item] for item in loader]
        print(f"{workers} workers: conjugate, its imaginary part, resolved:", items[workers])
    assert items[0] == [[1 - 2j, -2.0, 1 - 2j], [3 + 4j, 4.0, 3 + 4j]]
    assert items[1] == [[1 + 2j, 2.0, 1 - 2j], [3 - 4j, -4.0, 3 + 4j]], "changed: the bits are kept now"
    print("as described: values depend on the number of workers, without a word")
PYTHON
"$folder/venv/bin/python" -W error "$folder/script.py"
