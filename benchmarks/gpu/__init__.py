"""What only a GPU can show, as a series of short steps that can be stopped and continued: docs/GPU.md."""
