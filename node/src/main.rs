//! `vectorizer-node`: the server's command line.

fn main() {}
