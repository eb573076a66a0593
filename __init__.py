"""FuseBench: which way of turning a transformer's layers into one text embedding is best, and by how much."""
