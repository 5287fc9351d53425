"""What each of the two processes of `test_two_processes_end_where_one_does` runs: FEATURES OUT."""

import sys
from pathlib import Path

import torch
from helpers import tiny_model
from test_eagle_training import config

from specdec_ref.training.eagle import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = tiny_model(spread=0.15, num_hidden_layers=6, dtype=torch.float32)
    train(config(3, tokens=800, rejected_share=1.0), model, [Path(sys.argv[1])], Path(sys.argv[2]))
