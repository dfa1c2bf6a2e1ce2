"""The only door to signal tensors on disk (`files`) and to the epochs cut from them (`epochs`)."""
