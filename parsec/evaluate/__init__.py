"""What scores architectures: shared weights, trainings, tables, latencies; one contract."""
