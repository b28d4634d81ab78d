//! Containers: what is assigned is made to run, what is not is stopped.
