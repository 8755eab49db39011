"""Who starts the processes of a training."""
