"""Porting MXNet models to PyTorch, without MXNet."""
