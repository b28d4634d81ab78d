//! Nothing: this package only unifies features; see its manifest.
