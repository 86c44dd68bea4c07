"""Models answer whoever tries them out, in the words of the hosted API, from a child process of this one."""
