//! How the nodes of a map are cut into cells, in each of which SWIM runs by itself.

use std::sync::Arc;

use crate::random::{mix, mix_all};
use crate::{Map, NodeId};

/// The most nodes of a cell, where there are several cells: one bit each in a summary.
pub const CELL_NODES_MAX: usize = 64;

/// A node of the map, as far as liveness goes.
#[derive(Debug)]
struct Seat {
    node: NodeId,
    zone: u16,
    place: Place,
}

/// Where a node is: in which cell, and where in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) cell: u32,
    pub(super) at: u32,
}

#[derive(Debug)]
struct Cell {
    /// A hash of its members: nodes whose maps differ there do not take each other's numbers for their own.
    name: u64,
    /// Indexes into the seats.
    members: Vec<u32>,
}

/// The nodes of a map, cut into cells: the same on every node, as it follows from the map alone.
///
/// A cell is all nodes whose hashed names begin with the same bits, as few bits as give at most [`CELL_NODES_MAX`]
/// nodes: some 45 on average. A node that joins or leaves thus changes one cell, or makes one of two or two of one.
/// Zones are mixed in each cell as they are in the map.
///
/// Some 60 bytes a node: made once an epoch, and shared.
#[derive(Default, Debug)]
pub struct Cells {
    /// By name.
    seats: Vec<Seat>,
    /// The first bytes of their names, which nearly always tell them apart: few cache lines to search.
    heads: Vec<u64>,
    zones: Vec<Arc<str>>,
    /// How many nodes each zone has.
    zone_nodes: Vec<usize>,
    cells: Vec<Cell>,
}

fn head(node: &NodeId) -> u64 {
    u64::from_be_bytes(*node.as_bytes().first_chunk().expect("a name has 32 bytes"))
}

impl Cells {
    /// The cells of `map`.
    #[must_use]
    pub fn new(map: &Map) -> Self {
        Self::of_at_most(map, CELL_NODES_MAX)
    }

    /// One cell where `map` has at most `nodes_max` nodes; else cells of so many, at most [`CELL_NODES_MAX`]. All nodes
    /// must be given the same number. Hazard: what a node of a large cell has to do and to remember grows with its
    /// cell.
    #[must_use]
    pub fn of_at_most(map: &Map, nodes_max: usize) -> Self {
        let zones: Vec<Arc<str>> = map.zones().iter().map(|zone| zone.as_str().into()).collect();
        let mut zone_nodes = vec![0; zones.len()];
        let mut seats: Vec<Seat> = Vec::with_capacity(map.nodes().len());
        for node in map.nodes() {
            let zone = map.zones().binary_search(&node.zone).expect("the map's zones are sorted");
            zone_nodes[zone] += 1;
            seats.push(Seat {
                node: node.id,
                zone: u16::try_from(zone).expect("a map has fewer than 65,536 nodes"),
                place: Place { cell: 0, at: 0 },
            });
        }
        seats.sort_by_key(|seat| seat.node);
        let mut order: Vec<(u64, u32)> = seats.iter().map(|seat| mix_all(seat.node.as_bytes())).zip(0..).collect();
        order.sort_unstable();
        let heads = seats.iter().map(|seat| head(&seat.node)).collect();
        let mut cells = Self { seats, heads, zones, zone_nodes, cells: Vec::new() };
        if order.len() <= nodes_max {
            cells.add(&order);
        } else {
            cells.cut(&order, 0, nodes_max.clamp(1, CELL_NODES_MAX));
        }
        cells
    }

    /// Makes cells of `nodes`, whose hashes agree in the first `depth` bits.
    fn cut(&mut self, nodes: &[(u64, u32)], depth: u32, nodes_max: usize) {
        if nodes.len() <= nodes_max {
            if !nodes.is_empty() {
                self.add(nodes);
            }
            return;
        }
        // Beyond the last bit, where all are equal, any rule does.
        let middle = match depth {
            0..64 => nodes.partition_point(|(hash, _)| hash & (1 << (63 - depth)) == 0),
            _ => nodes.len() / 2,
        };
        let (left, right) = nodes.split_at(middle);
        self.cut(left, depth.saturating_add(1), nodes_max);
        self.cut(right, depth.saturating_add(1), nodes_max);
    }

    fn add(&mut self, nodes: &[(u64, u32)]) {
        let cell = u32::try_from(self.cells.len()).expect("at most as many as nodes");
        for (&(_, index), at) in nodes.iter().zip(0..) {
            self.seats[index as usize].place = Place { cell, at };
        }
        let name = nodes.iter().fold(0, |name, (hash, _)| mix(name ^ hash));
        self.cells.push(Cell { name, members: nodes.iter().map(|&(_, index)| index).collect() });
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.seats.len()
    }

    /// How many cells there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.cells.len()
    }

    /// In which cell `node` is, counted from 0; none: the map does not have it.
    #[must_use]
    pub fn cell_of(&self, node: &NodeId) -> Option<usize> {
        self.place(node).map(|place| place.cell as usize)
    }

    /// The nodes of the cell of this number, which is below [`count`](Self::count).
    pub fn members(&self, cell: usize) -> impl ExactSizeIterator<Item = &NodeId> {
        self.cells[cell].members.iter().map(|&index| &self.seats[index as usize].node)
    }

    fn seat(&self, node: &NodeId) -> Option<&Seat> {
        let head = head(node);
        let first = self.heads.partition_point(|other| *other < head);
        self.seats[first..].iter().take_while(|seat| seat.node <= *node).find(|seat| seat.node == *node)
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.seat(node).is_some()
    }

    pub(super) fn place(&self, node: &NodeId) -> Option<Place> {
        self.seat(node).map(|seat| seat.place)
    }

    /// The zone of a node of the map.
    pub(super) fn zone(&self, node: &NodeId) -> &Arc<str> {
        &self.zones[usize::from(self.seat(node).expect("a node of the map").zone)]
    }

    /// How many nodes `zone` has in all.
    pub(super) fn zone_nodes(&self, zone: &str) -> usize {
        self.zones.binary_search_by(|name| (**name).cmp(zone)).map_or(0, |index| self.zone_nodes[index])
    }

    pub(super) fn name(&self, cell: u32) -> u64 {
        self.cells[cell as usize].name
    }

    pub(super) fn node(&self, place: Place) -> NodeId {
        self.seats[self.cells[place.cell as usize].members[place.at as usize] as usize].node
    }
}
