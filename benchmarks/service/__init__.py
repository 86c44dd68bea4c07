"""The service beside what a user would pick instead, each as a whole, through HTTP."""
