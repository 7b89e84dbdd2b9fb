"""Where the keys of tokens come from: a file or a server, and how they are kept fresh."""
