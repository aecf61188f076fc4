// Several models called from several threads at once, while others are made and freed: every answer is to the bit that of
// one thread alone. For ThreadSanitizer, which says where threads use the same memory without an order.
//
//   concurrent_calls LIBRARY ROUNDS
#include <atomic>
#include <cstdlib>
#include <thread>

#include "op_floats.h"

namespace {

constexpr int kCallers = 4, kThreads = 3;
constexpr Input kKinds[] = {FLOAT, DYNAMIC, FIXED};

std::vector<std::vector<int64_t>> some_texts() {
    std::vector<std::vector<int64_t>> texts;
    Random random;
    for (size_t length : {1, 2, 19, 35, 7, 12, 30}) {
        texts.emplace_back();
        for (size_t place = 0; place < length; ++place) texts.back().push_back(random() % SmallModel::kVocabulary);
    }
    return texts;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::printf("usage: concurrent_calls LIBRARY ROUNDS\n");
        return 2;
    }
    const Engine engine(argv[1]);
    if (!engine.complete) return 1;
    const int rounds = std::atoi(argv[2]);
    const auto texts = some_texts();
    std::atomic<int> wrong{0}, calls{0};
    for (const Input kind : kKinds) {
        const SmallModel model(kind);
        const std::vector<float> alone = model.run(engine, texts, 1);
        const auto [answers, exits] = model.answer(engine, texts, 0.6f);
        sweet_model* const shared = model.make(engine, kThreads);
        if (alone.empty() || answers.empty() || !shared) {
            std::printf("FAIL %s\n", engine.error());
            return 1;
        }
        std::vector<std::thread> callers;
        for (int caller = 0; caller < kCallers; ++caller)
            callers.emplace_back([&, caller] {
                for (int round = 0; round < rounds; ++round, ++calls) {
                    bool same;
                    if ((caller + round) % 4 == 0) {  // a model of its own
                        const std::vector<float> logits = model.run(engine, texts, kThreads);
                        same = logits.size() == alone.size() && same_bits(logits.data(), alone.data(), alone.size());
                    } else if ((caller + round) % 4 == 1) {
                        const std::vector<float> logits = model.run_on(engine, shared, texts);
                        same = logits.size() == alone.size() && same_bits(logits.data(), alone.data(), alone.size());
                    } else {
                        const auto [got, at] = model.answer_on(engine, shared, texts, 0.6f);
                        same = at == exits && same_bits(got.data(), answers.data(), answers.size());
                    }
                    wrong += !same;
                    if (engine.workspace_bytes(shared) < 0) ++wrong;
                }
            });
        for (std::thread& caller : callers) caller.join();
        engine.model_free(shared);
    }
    std::printf("%d of %d calls answered as one alone\n", calls - wrong, calls.load());
    return wrong ? 1 : 0;
}
