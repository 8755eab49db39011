"""What stages hand each other: schemas, datasets, and the sealed folders that both are made of."""
