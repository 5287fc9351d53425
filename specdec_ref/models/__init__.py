"""Models: where they come from (`hub`), how a tree is scored in one forward (`target`), the KV cache, and toys."""
