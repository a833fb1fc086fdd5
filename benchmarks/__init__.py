"""Speed and memory of the training loops beside a peer and a limit, all measured in one run: `python -m benchmarks`."""
