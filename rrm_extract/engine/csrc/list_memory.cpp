// Where lists of deltas lie. A list is written when a layer's input is made, and read for the last
// time soon after, in the same batch; there is room for a frame in which everything changes. So lists
// that are never needed at the same time lie in the same place, which is also more often in a cache.
#include <algorithm>
#include <numeric>

#include "network.hpp"

namespace rrm {

namespace {

struct Span {
    size_t begin, end;                 // operations, the last one included

    bool meets(const Span& other) const { return begin <= other.end && other.begin <= end; }
    void cover(const Span& other) {
        begin = std::min(begin, other.begin);
        end = std::max(end, other.end);
    }
};

struct Need {
    Span span;
    size_t room;
    size_t place = 0;
};

// Gives each need the lowest place that is free for all of its span, the largest first; returns the
// room that all of them take.
size_t arrange(std::vector<Need>& needs) {
    std::vector<size_t> order(needs.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return needs[a].room > needs[b].room; });
    std::vector<const Need*> placed;   // by place
    size_t all = 0;
    for (const size_t index : order) {
        Need& need = needs[index];
        for (const Need* const other : placed) {
            if (!need.span.meets(other->span)) continue;
            if (need.place + need.room <= other->place) break;
            need.place = std::max(need.place, other->place + other->room);
        }
        all = std::max(all, need.place + need.room);
        const auto after = [](const Need* a, const Need* b) { return a->place < b->place; };
        placed.insert(std::upper_bound(placed.begin(), placed.end(), &need, after), &need);
    }
    return all;
}

}  // namespace

List Network::list_shape(const Delta& delta) const {
    const int units = delta.group_blocks * block_units();
    List list{delta.height, delta.width, delta.groups(), units, 0, nullptr, nullptr, nullptr};
    list.capacity = static_cast<size_t>(delta.width) * units + kListSlack;
    return list;
}

void Network::place_lists() {
    // Frames that pass a segment together pass it before the next ones do, and in a chain of layers
    // each frame may go by itself.
    const auto widened = [&](size_t index) {
        for (const Chain& chain : chains)
            if (chain.begin <= index && index < chain.end) return Span{chain.begin, chain.end - 1};
        return Span{index, index};
    };
    const auto segment = [&](size_t index) {
        return Span{segment_of(index).begin, segment_of(index).end - 1};
    };
    std::vector<Span> spans;
    for (size_t i = 0; i < deltas.size(); i++) {
        // What no operation makes as a whole, a view, is there from the beginning.
        size_t maker = 0, last = 0;
        for (const auto& operation : operations) {
            const auto index = static_cast<size_t>(operation->index);
            if (deltas[i].tensor >= 0 && operation->target() == deltas[i].tensor) maker = index;
            if (operation->source_delta() == static_cast<int>(i)) last = index;
        }
        Span span = widened(maker);
        span.cover(widened(last));
        const Span first_segment = segment(span.begin), last_segment = segment(span.end);
        if (first_segment.begin != last_segment.begin) {
            span.cover(first_segment);
            span.cover(last_segment);
        }
        spans.push_back(span);
    }
    const auto place = [&](size_t Delta::ListRoom::*what) {
        std::vector<Need> needs;
        for (size_t i = 0; i < deltas.size(); i++)
            needs.push_back({spans[i], deltas[i].list_room.*what *
                                           static_cast<size_t>(deltas[i].versions)});
        list_memory.*what = arrange(needs);
        for (size_t i = 0; i < deltas.size(); i++) deltas[i].list_place.*what = needs[i].place;
    };
    for (Delta& delta : deltas) {
        if (delta.kind != DeltaKind::list) continue;
        const List list = list_shape(delta);
        const size_t lines = static_cast<size_t>(list.height) * list.groups;
        const auto whole_lines = [](size_t count, size_t size) {  // of the cache
            return (count * size + 63) / 64 * 64 / size;
        };
        delta.list_room = {whole_lines(lines * list.capacity, sizeof(uint32_t)),
                           whole_lines(lines * list.capacity, sizeof(uint8_t)),
                           whole_lines(lines * (list.width + 1), sizeof(uint32_t))};
    }
    place(&Delta::ListRoom::values);
    place(&Delta::ListRoom::units);
    place(&Delta::ListRoom::starts);
}

}  // namespace rrm
