//! The doors of the data plane.
