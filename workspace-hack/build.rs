//! Only here so that build dependencies are resolved.

fn main() {}
