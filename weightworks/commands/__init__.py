"""What each of the commands does, a module a group of them."""
