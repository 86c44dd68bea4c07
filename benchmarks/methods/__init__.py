"""How fast the methods learn, beside the libraries that people use for them."""
