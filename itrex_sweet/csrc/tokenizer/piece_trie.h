// A trie of the pieces of a vocabulary: all pieces that a text begins with, one step for each byte.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <vector>

struct Piece {
    std::string_view bytes;  // without zero bytes
    int32_t id;
};

// A double array: the child of a node by a byte is at the node's base xor the byte, if the unit there has that byte. No two
// nodes have the same base.
class PieceTrie {
   public:
    // `pieces`: sorted by their bytes, none of them empty or there twice.
    explicit PieceTrie(const std::vector<Piece>& pieces) : root_(Builder(pieces, units_).build()) { units_.shrink_to_fit(); }

    // Calls `use` with the size and the id of each piece that a text begins with, the shortest first.
    template <class Use>
    void each_prefix(const char* const text, const char* const end, Use use) const {
        uint32_t base = root_;
        for (const char* at = text; at < end;) {
            const auto byte = static_cast<unsigned char>(*at++);
            const Unit& unit = units_[base ^ byte];
            if (unit.byte != byte || byte == 0) return;
            if (unit.id >= 0) use(at - text, unit.id);
            base = unit.base;
        }
    }

    // Returns the id of a piece, or -1.
    int32_t find(std::string_view text) const {
        int32_t found = -1;
        each_prefix(text.data(), text.data() + text.size(), [&](int64_t size, int32_t id) {
            if (size == static_cast<int64_t>(text.size())) found = id;
        });
        return found;
    }

   private:
    struct Unit {
        uint32_t base : 24, byte : 8;  // base 0: no children; byte 0: not used
        int32_t id = -1;
        Unit() : base(0), byte(0) {}
    };

    // Places the nodes, with a list of the units that are free.
    class Builder {
       public:
        Builder(const std::vector<Piece>& pieces, std::vector<Unit>& units) : pieces_(pieces), units_(units) {
            units_.resize(kBlock);  // not used: base 0 leads there
            is_base_.assign(kBlock, true);
            next_.assign(kBlock, 0);
            before_.assign(kBlock, 0);
        }

        uint32_t build() {
            std::vector<Node> nodes{{0, pieces_.size(), 0, 0}};
            const uint32_t root = place(nodes.back(), nodes, true);
            while (!nodes.empty()) {
                const Node node = nodes.back();
                nodes.pop_back();
                units_[node.unit].base = place(node, nodes, false);
            }
            return root;
        }

       private:
        static constexpr uint32_t kBlock = 256, kMaxUnits = 1 << 24;
        static constexpr int kTries = 128;

        struct Node {
            size_t first, last;  // pieces below it
            size_t depth;
            uint32_t unit;
        };

        unsigned char byte_of(size_t piece, size_t depth) const {
            return static_cast<unsigned char>(pieces_[piece].bytes[depth]);
        }

        // Places the children of a node, and adds them to `nodes`; returns the node's base.
        uint32_t place(Node node, std::vector<Node>& nodes, bool is_root) {
            if (is_root) nodes.clear();
            if (node.first < node.last && pieces_[node.first].bytes.size() == node.depth)
                units_[node.unit].id = pieces_[node.first++].id;
            if (node.first == node.last) return 0;
            bytes_.clear();
            const size_t before = nodes.size();
            for (size_t first = node.first; first < node.last;) {
                const unsigned char byte = byte_of(first, node.depth);
                size_t last = first + 1;
                while (last < node.last && byte_of(last, node.depth) == byte) ++last;
                if (byte == 0) throw std::invalid_argument("piece");
                bytes_.push_back(byte);
                nodes.push_back({first, last, node.depth + 1, 0});
                first = last;
            }
            const uint32_t base = free_base();
            is_base_[base] = true;
            for (size_t i = 0; i < bytes_.size(); ++i) {
                const uint32_t unit = base ^ bytes_[i];
                units_[unit].byte = bytes_[i];
                unlink(unit);
                nodes[before + i].unit = unit;
            }
            return base;
        }

        // Takes a unit from the list; one that is not there stays as it is.
        void unlink(uint32_t unit) {
            next_[before_[unit]] = next_[unit];
            before_[next_[unit]] = before_[unit];
            next_[unit] = before_[unit] = unit;
        }

        // Returns a base at which the units of `bytes_` are free.
        uint32_t free_base() {
            // Single units fill the gaps that are left, and close those that they do not fit; others are tried where most
            // units are free.
            if (bytes_.size() == 1) {
                for (int tries = 0; next_[0] != 0 && tries < kTries; ++tries) {
                    const uint32_t unit = next_[0];
                    if (const uint32_t base = unit ^ bytes_[0]; !is_base_[base]) return base;
                    unlink(unit);
                }
            }
            uint32_t unit = before_[0];
            for (int tries = 0; unit != 0 && tries < kTries; ++tries, unit = before_[unit]) {
                const uint32_t base = unit ^ bytes_[0];
                const auto is_free = [&](unsigned char byte) { return units_[base ^ byte].byte == 0; };
                if (!is_base_[base] && std::all_of(bytes_.begin(), bytes_.end(), is_free)) return base;
            }
            return add_block();
        }

        // Returns the first unit of a new block.
        uint32_t add_block() {
            const auto start = static_cast<uint32_t>(units_.size());
            if (start + kBlock > kMaxUnits) throw std::length_error("vocabulary");
            units_.resize(start + kBlock);
            is_base_.resize(start + kBlock);
            for (uint32_t unit = start; unit < start + kBlock; ++unit) {
                next_.push_back(0);
                before_.push_back(unit == start ? before_[0] : unit - 1);
                next_[before_[unit]] = unit;
                before_[0] = unit;
            }
            return start;
        }

        const std::vector<Piece>& pieces_;
        std::vector<Unit>& units_;
        std::vector<uint32_t> next_, before_;  // free units; 0 is before the first and behind the last
        std::vector<bool> is_base_;
        std::vector<unsigned char> bytes_;
    };

    std::vector<Unit> units_;
    uint32_t root_;
};
