//! The program `flyweight-dataplane`.

fn main() {}
