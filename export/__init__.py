"""Everything up to a model bundle: data, networks, training, pruning, quantization, evaluation."""
