//! Agreement of the committee on one manifest per slot.
