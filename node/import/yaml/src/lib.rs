//! YAML with the place of each value, of bounded size, and why a file that others wrote is not imported.
//!
//! [`node::read`] makes [`Node`](node::Node)s of a text, aliases written out and merges done: a file whose few lines stand
//! for billions of values ends at [`bounds`], before they are made, with the place in the file ([`error`]).
//!
//! ```
//! let files = veil_node_import_yaml::node::read("services: { web: { image: nginx } }").unwrap();
//! assert_eq!(files[0].text_at(&["services", "web", "image"]), Some("nginx"));
//! ```

pub mod bounds;
pub mod error;
pub mod node;
