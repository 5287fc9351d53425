"""Real serving engines that this package can start itself: llama.cpp, embedded in the wheel `xllamacpp`."""
