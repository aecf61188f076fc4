// C interface of the tokenizer library: from texts to packed rows of token ids, as the `tokenizers` library computes them.
//
// A tokenizer is immutable after its creation: any number of threads may encode with it, and a forked child may as well.
// The library keeps none of the pointers that it is given, has no global state, and throws no exceptions to its caller.
#pragma once

#include <cstdint>

#define SWEET_API extern "C" __attribute__((visibility("default")))

// Strings of UTF-8, each of which ends with a zero byte.
struct sweet_strings {
    const char* bytes;
    int64_t size;   // bytes, the zeros included
    int64_t count;  // strings
};

enum sweet_added_token {
    SWEET_NORMALIZED = 1,    // matched in the normalized text
    SWEET_IS_TEXT = 2,       // matched, and read as a text nevertheless
    SWEET_TAKES_LEFT = 4,    // with the spaces before it
    SWEET_TAKES_RIGHT = 8,   // with the spaces behind it
    SWEET_SINGLE_WORD = 16,  // not within a word
};

enum sweet_template_item { SWEET_SPECIAL_TOKEN = 0, SWEET_FIRST_TEXT = 1, SWEET_SECOND_TEXT = 2 };

// Normalizer, pre-tokenizer and model, which come together in the tokenizers that are read.
enum sweet_model_kind {
    SWEET_WORDPIECE = 0,       // `BertNormalizer`, `BertPreTokenizer` and WordPiece: `sweet_wordpiece`
    SWEET_BYTE_LEVEL_BPE = 1,  // `NFC` or no normalizer, `ByteLevel` and BPE: `sweet_byte_level_bpe`
    SWEET_UNIGRAM = 2,         // any of `sweet_normalizer`, `Metaspace` and Unigram: `sweet_unigram`
};

struct sweet_wordpiece {
    sweet_strings prefix;  // one string: of pieces that continue a word
    int32_t unknown_id, max_word_characters;
    int32_t spaced_ideographs, strip_accents, lowercase;
    int32_t unused;
};

// The vocabulary has each byte that UTF-8 has. Merges: two pieces each, the best first.
struct sweet_byte_level_bpe {
    sweet_strings merges;
    int32_t composes;        // normalizes to NFC
    int32_t splits;          // into words, by GPT-2's regular expression
    int32_t adds_space;      // before each part of a text that has none there
    int32_t ignores_merges;  // for a word of the vocabulary
};

enum sweet_normalizer_kind {
    SWEET_CHARACTER_MAP = 0,       // `Precompiled`; first: the map
    SWEET_UNICODE_FORM = 1,        // `NFD` or, by flags, a sum of `sweet_unicode_form`, `NFC`, `NFKD`, `NFKC`
    SWEET_REPLACE = 2,             // first: a string; second: what replaces it
    SWEET_REPLACE_SPACES = 3,      // ` {2,}`; second: what replaces them
    SWEET_REPLACE_WHITESPACE = 4,  // `\s{2,}|[\n\r\t]`; second: what replaces it
    SWEET_STRIP = 5,               // white space; flags: a sum of `sweet_side`
    SWEET_PREPEND = 6,             // second: to texts that are not empty
    SWEET_STRIP_ACCENTS = 7,
    SWEET_LOWERCASE = 8,
};

enum sweet_unicode_form { SWEET_COMPOSED = 1, SWEET_COMPATIBLE = 2 };

enum sweet_side { SWEET_LEFT = 1, SWEET_RIGHT = 2 };

struct sweet_normalizer {
    int32_t kind;  // `sweet_normalizer_kind`
    int32_t flags;
    const char* first;  // bytes; zeros among them
    int64_t first_size;
    const char* second;
    int64_t second_size;
};

enum sweet_prepending { SWEET_NEVER = 0, SWEET_AT_START = 1, SWEET_ALWAYS = 2 };

struct sweet_unigram {
    const sweet_normalizer* normalizers;
    const double* scores;  // of the pieces
    double unknown_score;
    int32_t unknown_id;  // or -1: a text with unknown characters is left to another tokenizer
    int32_t normalizer_count;
    int32_t splits_whitespace;  // `WhitespaceSplit` before `Metaspace`
    int32_t prepends;           // `sweet_prepending`: the replacement of spaces to words
    int32_t splits;             // before each replacement of a space
    int32_t byte_fallback;      // unknown characters are read as bytes, if the vocabulary has these
    sweet_strings replacement;  // one string: of a space
};

struct sweet_tokenizer {
    int32_t model_kind;  // `sweet_model_kind`
    int32_t single_items, pair_items;
    int32_t unused;
    const void* model;     // the structure of the kind
    sweet_strings pieces;  // the vocabulary
    const int32_t* ids;    // (pieces.count,)
    sweet_strings added;   // added tokens
    const int32_t* added_ids;
    const int32_t* added_flags;  // sums of `sweet_added_token`
    // Rows of one and of two texts: (items, 3) kind, token id and token type.
    const int32_t* single;
    const int32_t* pair;
};

enum sweet_encode_result {
    SWEET_INVALID = -1,          // an argument is wrong, or the text is not UTF-8
    SWEET_OTHER_TOKENIZER = -2,  // a text has to be encoded by another tokenizer
    SWEET_EMPTY_TEXT = -3,       // a text has no tokens of its own
    SWEET_NO_MEMORY = -4,
    SWEET_SMALL_OUTPUT = -5,  // the output has no room; its first value is the capacity that it takes
};

enum sweet_encode_option {
    SWEET_FROM_LEFT = 1,    // long rows are cut at their start
    SWEET_ALLOW_EMPTY = 2,  // texts without tokens of their own make rows of special tokens
};

enum sweet_encode_contents { SWEET_HAS_TYPES = 1, SWEET_HAS_POSITIONS = 2 };

SWEET_API int32_t sweet_tokenizer_interface();

// Returns null if the description is inconsistent, or without memory.
SWEET_API void* sweet_tokenizer_new(const sweet_tokenizer* description);
SWEET_API void sweet_tokenizer_free(void* tokenizer);

// Encodes rows of texts.
//
// `text`: the texts of all rows, concatenated, `size` bytes. `characters`: number of code points of each text; null for a
// single row of one text. `is_pair`: (rows,), or null if every row is one text. `limit`: maximum tokens of a row, 0 for no
// limit; longer rows are cut by the rule of `truncation="longest_first"`. `options`: a sum of `sweet_encode_option`.
// `padding_id`: a token without a position, or -1.
//
// Writes to `output`, one after another: the ids, (tokens,); the starts of the rows and the end, (rows + 1,); the tokens of
// each row before it was cut, (rows,); 4 times the number of rows that were cut, plus a sum of `sweet_encode_contents`; if
// a type is not 0, types, (tokens,); if an id is `padding_id`, positions, (tokens,), counted without such tokens, which have
// -1. A row rarely has more tokens than its texts have bytes, beside its special tokens.
//
// Returns the number of tokens, or one of `sweet_encode_result`.
SWEET_API int64_t sweet_tokenizer_encode(const void* tokenizer, const char* text, int64_t size, const int64_t* characters,
                                         const uint8_t* is_pair, int64_t rows, int64_t limit, int32_t options,
                                         int64_t padding_id, int64_t* output, int64_t capacity);

// For the comparison with another tokenizer.

// Writes the code points at the borders of the tables, and a part of those that are mapped to others, without those that are
// left to another tokenizer. Returns their number, at most `capacity`.
SWEET_API int64_t sweet_tokenizer_borders(const void* tokenizer, uint32_t* codes, int64_t capacity);

// Writes the normal form of a text. Returns its bytes, or one of `sweet_encode_result`.
SWEET_API int64_t sweet_tokenizer_normalize(const void* tokenizer, const char* text, int64_t size, char* form,
                                            int64_t capacity);

// Writes the end of each word of a normalized text that begins with a space, in bytes. Returns the number of words, or one of
// `sweet_encode_result`: `SWEET_OTHER_TOKENIZER` if the words cannot be told without the model.
SWEET_API int64_t sweet_tokenizer_words(const void* tokenizer, const char* text, int64_t size, int64_t* ends,
                                        int64_t capacity);
