// Calls models from several threads, on contexts of one model, of several, and on one that all threads share, while other
// models and contexts are created and freed; every answer must equal that of one thread bit by bit. There are more callers
// than threads, so calls wait, and give threads to one another. A call must leave the affinity of its thread as it was.
// Intended for ThreadSanitizer.
//
//   concurrent_calls LIBRARY ROUNDS
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "small_model.h"

namespace {

constexpr int kCallers = 6, kThreads = 3;
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

bool same(const std::vector<float>& got, const std::vector<float>& expected) {
    return got.size() == expected.size() && same_bits(got.data(), expected.data(), expected.size());
}

cpu_set_t affinity() {
    cpu_set_t processors;
    CPU_ZERO(&processors);
    pthread_getaffinity_np(pthread_self(), sizeof processors, &processors);
    return processors;
}

// Restricts the calling thread to one of its processors.
void bind_to_one_processor() {
    cpu_set_t processors = affinity();
    for (int processor = 0; processor < CPU_SETSIZE && CPU_COUNT(&processors) > 1; ++processor)
        CPU_CLR(processor, &processors);
    pthread_setaffinity_np(pthread_self(), sizeof processors, &processors);
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
    sweet_threads* const threads = engine.threads_new(kThreads);  // of all models
    for (const InputType kind : kKinds) {
        const SmallModel model(kind, kind == DYNAMIC ? Variant::DISENTANGLED : Variant::PLAIN);
        const std::vector<float> expected = model.run(engine, texts, 1);
        const auto [answers, exits] = model.answer(engine, texts, 0.6f);
        sweet_model* const packed = engine.model_new(&model.description());
        sweet_context* const shared = packed ? engine.context_new(packed, threads, 0) : nullptr;
        if (expected.empty() || answers.empty() || !shared) {
            std::printf("FAIL %s\n", engine.error());
            return 1;
        }
        std::vector<std::thread> callers;
        for (int caller = 0; caller < kCallers; ++caller)
            callers.emplace_back([&, caller] {
                if (caller == 1) bind_to_one_processor();
                const cpu_set_t before = affinity();
                sweet_context* own = engine.context_new(packed, threads, caller % 2 == 0 ? 0 : -1);
                for (int round = 0; round < rounds; ++round, ++calls) {
                    bool is_same;
                    if (round % 3 == 0) wrong += engine.threads_wake(threads) != 0;
                    wrong += engine.threads_yield(threads, round % 2) != 0;
                    switch ((caller + round) % 5) {
                        case 0:  // a model and threads of its own
                            is_same = same(model.run(engine, texts, kThreads), expected);
                            break;
                        case 1:  // the context that all callers share
                            is_same = same(model.run_on(engine, shared, texts), expected);
                            break;
                        case 2:
                            engine.context_free(own);
                            own = engine.context_new(packed, threads, 0);
                            is_same = same(model.run_on(engine, own, texts), expected);
                            break;
                        default:
                            const auto [got, at] = model.answer_on(engine, own, texts, 0.6f);
                            is_same = at == exits && same(got, answers);
                    }
                    const cpu_set_t after = affinity();
                    wrong += !is_same || !CPU_EQUAL(&before, &after);
                    int64_t counts[SWEET_NUM_COUNTS];
                    if (engine.context_bytes(shared) < 0 || engine.threads_count(threads, counts) != 0 ||
                        counts[SWEET_MOST_THREADS] > kThreads)
                        ++wrong;
                }
                engine.context_free(own);
            });
        for (std::thread& caller : callers) caller.join();
        engine.model_free(packed);
        engine.context_free(shared);
    }
    int64_t counts[SWEET_NUM_COUNTS];
    engine.threads_count(threads, counts);
    std::printf("%d of %d concurrent calls match\n", calls - wrong, calls.load());
    std::printf("%d calls and %d threads at the same time\n", static_cast<int>(counts[SWEET_MOST_CALLS]),
                static_cast<int>(counts[SWEET_MOST_THREADS]));
    engine.threads_free(threads);
    return wrong || counts[SWEET_CALLS] != 0 || counts[SWEET_THREADS] != 0;
}
