//! How often the judge is wrong, and how small a drift it finds, by simulation.

use super::*;
