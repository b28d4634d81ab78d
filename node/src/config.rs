//! Configuration files and their environment twins.
