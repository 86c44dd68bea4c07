"""Side by side with what a user would pick instead, and the figures that each method reaches."""
