#!/usr/bin/env bash
# Sionna's correlated fading: TDL's transmit matrix is conjugated, and matrices without full rank give other powers.
#
# Version:  sionna-no-rt 2.2.0 with torch 2.13.0.
# Input:    (1) TDL with two antennas at each end and tx_corr_mat = R, R_12 = 0.5 + 0.6j; and, as its text says that
#           this is the same, spatial_corr_mat = kron(I, R). (2) KroneckerModel with r_rx = v v^H, |v_i| = 1: the
#           positive semi-definite matrix of four antennas that one plane wave meets. Its text asks for no more.
# Expected: (1) the covariance of the transmit antennas, E[h_i conj(h_j)], is R in both. (2) that of the output is r_rx:
#           ones on the diagonal; or an error.
# Seen:     (1) it is R with spatial_corr_mat and conj(R) with tx_corr_mat, which is multiplied by the conjugate
#           transpose of its Cholesky factor. rx_corr_mat is right. A real R hides it. (2) the powers of the four
#           antennas are 1, 1, 3 and 4: a failed Cholesky factorisation is used as it stands. Nothing is said, and TDL
#           factorises in the same way.
# Remedy:   (1) give conj(R), or kron(R_rx, R_tx). (2) multiply by Hermitian roots (eigh) yourself.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 sionna-no-rt==2.2.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from sionna.phy import config
from sionna.phy.channel import KroneckerModel
from sionna.phy.channel.tr38901 import TDL

assert version("sionna-no-rt") == "2.2.0"
config.seed = 1
room = {"precision": "double", "device": "cpu"}
draws = 40000
r = 0.5 + 0.6j
R = torch.tensor([[1, r], [r.conjugate(), 1]], dtype=torch.complex128)


def covariance(h):
    """E[h_i conj(h_j)] over the last axis, scaled to a mean power of one."""
    h = h.reshape(-1, h.shape[-1])
    return h.mT @ h.conj() / h.abs().square().sum() * h.shape[-1]


def transmit(**correlation):
    model = TDL("A", 1e-9, 3.5e9, num_rx_ant=2, num_tx_ant=2, **correlation, **room)
    return covariance(model(draws, 1, 1.0)[0][:, 0, :, 0, :, 0, 0])


apart = transmit(tx_corr_mat=R)[0, 1].item()
whole = transmit(spatial_corr_mat=torch.kron(torch.eye(2, dtype=R.dtype), R))[0, 1].item()
print(f"R_12 = {r}; tx_corr_mat gives {apart:.2f}, spatial_corr_mat {whole:.2f}")
# The deviation of the estimates is 1 / sqrt(80000) = 0.004.
assert abs(apart - r.conjugate()) < 0.03, "changed: tx_corr_mat"
assert abs(whole - r) < 0.03, "changed: spatial_corr_mat"

v = torch.exp(2j * torch.arange(4, dtype=torch.float64))[:, None]
h = KroneckerModel(r_rx=v @ v.mH, **room)(torch.randn(draws, 4, 1, dtype=torch.complex128))
powers = h.abs().square().mean(dim=(0, 2))
print("powers of four antennas that one wave meets:", [round(x, 2) for x in powers.tolist()])
assert powers[2] > 2 and powers[3] > 2, "changed: the powers"
root = torch.linalg.eigh(v @ v.mH)
root = root.eigenvectors * root.eigenvalues.clamp_min(0).sqrt() @ root.eigenvectors.mH
right = (root @ torch.randn(draws, 4, 1, dtype=torch.complex128)).abs().square().mean(dim=(0, 2))
assert bool(((right - 1).abs() < 0.05).all())
print("as described: conjugated, and wrong without full rank")
PYTHON
