// Calls several models from several threads while other models are created and freed; every answer must equal that of a
// expected thread bit by bit. Intended for ThreadSanitizer.
//
//   concurrent_calls LIBRARY ROUNDS
#include <atomic>
#include <cstdlib>
#include <thread>

#include "small_model.h"

namespace {

constexpr int kCallers = 4, kThreads = 3;
constexpr InputType kKinds[] = {FLOAT, DYNAMIC, STATIC};

std::vector<std::vector<int64_t>> make_texts() {
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
    const auto texts = make_texts();
    std::atomic<int> wrong{0}, calls{0};
    for (const InputType kind : kKinds) {
        const SmallModel model(kind, kind == DYNAMIC ? Variant::DISENTANGLED : Variant::PLAIN);
        const std::vector<float> expected = model.run(engine, texts, 1);
        const auto [answers, exits] = model.answer(engine, texts, 0.6f);
        sweet_model* const shared = model.make(engine, kThreads);
        if (expected.empty() || answers.empty() || !shared) {
            std::printf("FAIL %s\n", engine.error());
            return 1;
        }
        std::vector<std::thread> callers;
        for (int caller = 0; caller < kCallers; ++caller)
            callers.emplace_back([&, caller] {
                for (int round = 0; round < rounds; ++round, ++calls) {
                    bool same;
                    if ((caller + round) % 4 == 0) {  // creates its own model
                        const std::vector<float> logits = model.run(engine, texts, kThreads);
                        same = logits.size() == expected.size() && same_bits(logits.data(), expected.data(), expected.size());
                    } else if ((caller + round) % 4 == 1) {
                        const std::vector<float> logits = model.run_on(engine, shared, texts);
                        same = logits.size() == expected.size() && same_bits(logits.data(), expected.data(), expected.size());
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
    std::printf("%d of %d concurrent calls match\n", calls - wrong, calls.load());
    return wrong ? 1 : 0;
}
