"""The mathematics: pure functions of tensors, which import nothing of what is built on them."""
