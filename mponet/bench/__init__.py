"""Speed and memory: ours beside the framework's dense layer and beside other packages, interleaved in one process."""
