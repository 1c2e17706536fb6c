// The NBD specification (NetworkBlockDevice, doc/proto.md), rule by rule: one case for each thing
// that a client may send, with what the document has the server do.
#include <gtest/gtest.h>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::Client;
using test::hex;
using test::operator+;
using test::text;
using test::to_hex;
using test::World;

constexpr std::uint64_t kSize = 1 << 20;  // of the export
constexpr std::uint32_t kAck = 1;
constexpr std::uint32_t kInfo = 3;
constexpr std::uint32_t kContext = 4;
constexpr std::uint32_t kUnsup = 0x80000001;
constexpr std::uint32_t kInvalid = 0x80000003;
constexpr std::uint32_t kUnknown = 0x80000006;
constexpr std::uint32_t kTooBig = 0x80000009;
constexpr std::uint32_t kExtHeaderReqd = 0x8000000a;

Bytes be32(std::uint32_t value) {
  Bytes b(4);
  store_be32(b.data(), value);
  return b;
}

Bytes option(std::uint32_t number, const Bytes& data = {}) {
  return hex("49484156454f5054") + be32(number) + be32(static_cast<std::uint32_t>(data.size())) +
         data;
}

/// The data of INFO and GO.
Bytes query(std::string_view name, const Bytes& requests = {}) {
  Bytes count(2);
  store_be16(count.data(), static_cast<std::uint16_t>(requests.size() / 2));
  return be32(static_cast<std::uint32_t>(name.size())) + text(name) + count + requests;
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
Bytes contexts(std::string_view name, std::initializer_list<std::string_view> queries) {
  Bytes b = be32(static_cast<std::uint32_t>(name.size())) + text(name) +
            be32(static_cast<std::uint32_t>(queries.size()));
  for (const auto q : queries) b = b + be32(static_cast<std::uint32_t>(q.size())) + text(q);
  return b;
}

/// The types of the option replies in `bytes`, in order.
std::vector<std::uint32_t> reply_types(const Bytes& bytes) {
  std::vector<std::uint32_t> types;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto header = OptionReplyHeader::decode(bytes.data() + at);
    if (!header) return {0};
    types.push_back(static_cast<std::uint32_t>(header->type));
    at += OptionReplyHeader::kBytes + header->length;
  }
  return types;
}

enum class After : std::uint8_t { goes_on, transmission, closed_in_order, reset };

struct OptionRule {
  const char* rule;
  Bytes sent;  // after the client flags
  std::vector<std::uint32_t> replies;
  After after = After::goes_on;
  const char* flags = "00000003";
};

std::vector<OptionRule> option_rules() {
  const Bytes structured = option(8);
  const Bytes big(kOptionBytesMax + 1);
  return {
      {"LIST answers a SERVER for each export, then ACK", option(3), {2, kAck}},
      {"LIST with data is invalid", option(3, text("x")), {kInvalid}},
      {"PEEK_EXPORT is withdrawn", option(4), {kUnsup}},
      {"STARTTLS in NOTLS mode: not supported", option(5), {kUnsup}},
      {"STARTTLS with data is invalid", option(5, text("x")), {kInvalid}},
      {"INFO: EXPORT at least, then ACK", option(6, query("")), {kInfo, kInfo, kAck}},
      {"INFO of an unknown export", option(6, query("nvmf7n7")), {kUnknown}},
      {"INFO of a name with a NUL", option(6, query({"nvmf0n1\0", 8})), {kUnknown}},
      {"INFO: unknown information requests are ignored",
       option(6, query("1", hex("00ff 7777"))),
       {kInfo, kInfo, kAck}},
      {"INFO: name and description when asked for",
       option(6, query("1", hex("0001 0002 0003"))),
       {kInfo, kInfo, kInfo, kInfo, kAck}},
      {"INFO: a name longer than the data is invalid", option(6, hex("000000ff 0000")), {kInvalid}},
      {"INFO: more requests announced than sent", option(6, hex("00000000 0001")), {kInvalid}},
      {"INFO: bytes left over", option(6, hex("00000000 0000 00")), {kInvalid}},
      {"INFO without data", option(6), {kInvalid}},
      {"GO enters transmission", option(7, query("")), {kInfo, kInfo, kAck}, After::transmission},
      {"GO of an unknown export goes on", option(7, query("nope")), {kUnknown}},
      {"STRUCTURED_REPLY", structured, {kAck}},
      {"STRUCTURED_REPLY twice changes nothing", structured + structured, {kAck, kAck}},
      {"STRUCTURED_REPLY with data is invalid", option(8, text("x")), {kInvalid}},
      {"LIST_META_CONTEXT before structured replies", option(9, contexts("", {})), {kInvalid}},
      {"SET_META_CONTEXT before structured replies", option(10, contexts("", {})), {kInvalid}},
      {"LIST_META_CONTEXT without queries: all that there are",
       structured + option(9, contexts("", {})),
       {kAck, kContext, kAck}},
      {"LIST_META_CONTEXT: a namespace is all that it has",
       structured + option(9, contexts("1", {"qemu:x", "base:", "base:allocation"})),
       {kAck, kContext, kAck}},
      {"LIST_META_CONTEXT: queries that match none",
       structured + option(9, contexts("1", {"qemu:x", "x-none:", "base:alloc", ""})),
       {kAck, kAck}},
      {"SET_META_CONTEXT selects, each once",
       structured + option(10, contexts("nvmf0n1", {"base:allocation", "base:allocation"})),
       {kAck, kContext, kAck}},
      {"SET_META_CONTEXT: selecting none is no error",
       structured + option(10, contexts("nvmf0n1", {"base:", "x:y"})) +
           option(10, contexts("nvmf0n1", {})),
       {kAck, kAck, kAck}},
      {"SET_META_CONTEXT of an unknown export",
       structured + option(10, contexts("nope", {"base:allocation"})),
       {kAck, kUnknown}},
      {"SET_META_CONTEXT: a query longer than the data",
       structured + option(10, hex("00000000 00000001 000000ff 61")),
       {kAck, kInvalid}},
      {"LIST_META_CONTEXT: more queries announced than sent",
       structured + option(9, hex("00000000 ffffffff 00000000")),
       {kAck, kInvalid}},
      {"LIST_META_CONTEXT: bytes left over",
       structured + option(9, contexts("", {}) + text("x")),
       {kAck, kInvalid}},
      {"SET_META_CONTEXT without data", structured + option(10), {kAck, kInvalid}},
      {"EXTENDED_HEADERS", option(11), {kAck}},
      {"EXTENDED_HEADERS with data is invalid", option(11, text("x")), {kInvalid}},
      {"EXTENDED_HEADERS after STRUCTURED_REPLY", structured + option(11), {kAck, kAck}},
      {"EXTENDED_HEADERS twice", option(11) + option(11), {kAck, kInvalid}},
      {"STRUCTURED_REPLY after EXTENDED_HEADERS is no way back",
       option(11) + structured,
       {kAck, kExtHeaderReqd}},
      {"SET_META_CONTEXT with EXTENDED_HEADERS",
       option(11) + option(10, contexts("", {"base:allocation"})),
       {kAck, kContext, kAck}},
      {"EXPORT_NAME after EXTENDED_HEADERS: a hard disconnect",
       option(11) + option(1, text("nvmf0n1")),
       {kAck},
       After::reset},
      {"An unknown option is skipped with its data", option(0x1234, Bytes(700)), {kUnsup}},
      {"Option 0", option(0), {kUnsup}},
      {"An option that is too long is skipped", option(7, big), {kTooBig}},
      {"ABORT is acknowledged", option(2), {kAck}, After::closed_in_order},
      {"ABORT: its data is ignored", option(2, text("bye")), {kAck}, After::closed_in_order},
      {"ABORT: its data is ignored, however long", option(2, big), {kAck}, After::closed_in_order},
      {"EXPORT_NAME of an unknown export ends the session",
       option(1, text("nope")),
       {},
       After::closed_in_order},
      {"No option magic: a hard disconnect", Bytes(16), {}, After::reset},
      {"Client flags: FIXED_NEWSTYLE is not insisted on",
       option(7, query("")),
       {kInfo, kInfo, kAck},
       After::transmission,
       "00000000"},
      {"Client flags: an unknown one drops the connection", {}, {}, After::reset, "00000004"},
      {"Client flags: a high one, too", {}, {}, After::reset, "80000003"},
  };
}

TEST(NbdSpec, Options) {
  for (const OptionRule& c : option_rules()) {
    SCOPED_TRACE(c.rule);
    World world;
    Client client(world);
    client.taken();
    client.send(hex(c.flags) + c.sent);
    EXPECT_EQ(reply_types(client.taken()), c.replies);
    EXPECT_EQ(client.stream->was_reset, c.after == After::reset);
    EXPECT_EQ(client.stream->finished, c.after == After::closed_in_order);
    if (c.after == After::transmission) {
      client.request(Command::flush, 1, 0, 0);
      EXPECT_EQ(world.device.pending.size(), 1u);
    } else if (c.after == After::goes_on) {
      client.send(option(6, query("")));
      EXPECT_EQ(reply_types(client.taken()), (std::vector<std::uint32_t>{kInfo, kInfo, kAck}));
    }
  }
}

TEST(NbdSpec, ExportNameWithAndWithoutZeroes) {
  for (const bool zeroes : {true, false}) {
    World world;
    Client client(world);
    client.taken();
    client.send(hex(zeroes ? "00000001" : "00000003") + option(1, text("nvmf0n1")));
    const Bytes answer = client.taken();
    ASSERT_EQ(answer.size(), 10u + (zeroes ? 124u : 0u));
    EXPECT_EQ(load_be64(answer.data()), kSize);
    EXPECT_TRUE(
        std::all_of(answer.begin() + 10, answer.end(), [](auto b) { return b == std::byte{}; }));
  }
}

TEST(NbdSpec, TransmissionFlagsSayWhatIsServed) {
  host::BlockInfo info;
  info.deallocate = true;
  const std::uint16_t flags = transmission_flags(info, true);
  EXPECT_EQ(flags & 1, 1);          // HAS_FLAGS: always
  EXPECT_EQ(flags & (1 << 4), 0);   // ROTATIONAL: no
  EXPECT_NE(flags & (1 << 8), 0);   // CAN_MULTI_CONN: nothing is cached
  EXPECT_EQ(flags & (1 << 9), 0);   // RESIZE: an extension that is not served
  EXPECT_NE(flags & (1 << 10), 0);  // CACHE
  EXPECT_NE(flags & (1 << 11), 0);  // FAST_ZERO, with WRITE_ZEROES
  EXPECT_NE(flags & (1 << 6), 0);
  EXPECT_EQ(transmission_flags(info, false) & (1 << 7), 0);  // DF: structured replies only
  info.read_only = true;
  const std::uint16_t read_only = transmission_flags(info, true);
  EXPECT_NE(read_only & (1 << 1), 0);
  EXPECT_EQ(read_only & (1 << 6 | 1 << 5 | 1 << 11), 0);
}

struct CommandRule {
  const char* rule;
  Command command{};
  std::uint16_t flags = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 512;
  std::uint32_t error = 0;
  bool to_device = false;
  bool read_only = false;
};

constexpr std::uint32_t kMax = kPayloadBytesMax;
constexpr std::uint64_t kLast = kSize - 512;

const CommandRule kCommandRules[] = {
    {"READ", Command::read, 0, 0, 512, 0, true},
    {"READ up to the end", Command::read, 0, kLast, 512, 0, true},
    {"READ past the end", Command::read, 0, kLast, 1024, 22},
    {"READ beyond the end", Command::read, 0, 2 * kSize, 512, 22},
    {"READ whose end overflows", Command::read, 0, UINT64_MAX - 511, 1024, 22},
    {"READ longer than the maximum", Command::read, 0, 0, kMax + 512, 22},
    {"READ of nothing", Command::read, 0, 512, 0, 0},
    {"READ of nothing beyond the end", Command::read, 0, 2 * kSize, 0, 22},
    {"READ with FUA: accepted, ignored", Command::read, kFua, 0, 512, 0, true},
    {"READ with NO_HOLE", Command::read, kNoHole, 0, 512, 22},
    {"READ with REQ_ONE", Command::read, kReqOne, 0, 512, 22},
    {"READ with FAST_ZERO", Command::read, kFastZero, 0, 512, 22},
    {"READ with an unknown flag", Command::read, 1 << 5, 0, 512, 22},
    {"READ, read-only", Command::read, 0, 0, 512, 0, true, true},
    {"WRITE", Command::write, 0, 0, 512, 0, true},
    {"WRITE with FUA", Command::write, kFua, 0, 512, 0, true},
    {"WRITE past the end", Command::write, 0, kLast, 1024, 28},
    {"WRITE whose end overflows", Command::write, 0, UINT64_MAX - 511, 1024, 28},
    {"WRITE longer than the maximum", Command::write, 0, 0, kMax + 512, 22},
    {"WRITE of nothing", Command::write, 0, 512, 0, 0},
    {"WRITE with DF", Command::write, kDf, 0, 512, 22},
    {"WRITE with NO_HOLE", Command::write, kNoHole, 0, 512, 22},
    {"WRITE with PAYLOAD_LEN, which is of extended headers", Command::write, 1 << 5, 0, 512, 22},
    {"WRITE, read-only", Command::write, 0, 0, 512, 1, false, true},
    {"WRITE, read-only, with a bad flag too", Command::write, kDf, 0, 512, 1, false, true},
    {"FLUSH", Command::flush, 0, 0, 0, 0, true},
    {"FLUSH with FUA: accepted, ignored", Command::flush, kFua, 0, 0, 0, true},
    {"FLUSH with an offset", Command::flush, 0, 512, 0, 22},
    {"FLUSH with a length", Command::flush, 0, 0, 512, 22},
    {"FLUSH, read-only", Command::flush, 0, 0, 0, 0, true, true},
    {"TRIM", Command::trim, 0, 0, kSize, 0, true},
    {"TRIM with FUA", Command::trim, kFua, 0, 512, 0, true},
    {"TRIM past the end", Command::trim, 0, kLast, 1024, 22},
    {"TRIM of nothing", Command::trim, 0, 512, 0, 0},
    {"TRIM with FAST_ZERO", Command::trim, kFastZero, 0, 512, 22},
    {"TRIM, read-only", Command::trim, 0, 0, 512, 1, false, true},
    {"CACHE: nothing is cached, so nothing is to be done", Command::cache, 0, 0, kSize, 0},
    {"CACHE with FUA: accepted, ignored", Command::cache, kFua, 0, 512, 0},
    {"CACHE past the end", Command::cache, 0, kLast, 1024, 22},
    {"CACHE with an unknown flag", Command::cache, 1 << 9, 0, 512, 22},
    {"CACHE, read-only", Command::cache, 0, 0, 512, 0, false, true},
    {"WRITE_ZEROES", Command::write_zeroes, 0, 0, kSize, 0, true},
    {"WRITE_ZEROES with all its flags", Command::write_zeroes, kFua | kNoHole | kFastZero, 0, 512,
     0, true},
    {"WRITE_ZEROES past the end", Command::write_zeroes, 0, kLast, 1024, 28},
    {"WRITE_ZEROES whose end overflows", Command::write_zeroes, 0, UINT64_MAX - 511, 1024, 28},
    {"WRITE_ZEROES with DF", Command::write_zeroes, kDf, 0, 512, 22},
    {"WRITE_ZEROES, read-only", Command::write_zeroes, 0, 0, 512, 1, false, true},
    {"BLOCK_STATUS without a context", Command::block_status, 0, 0, 512, 22},
    {"BLOCK_STATUS with REQ_ONE", Command::block_status, kReqOne, 0, 512, 22},
    {"RESIZE, an extension", static_cast<Command>(8), 0, 0, 512, 22},
    {"An unknown command", static_cast<Command>(0x4242), 0, 0, 512, 22},
};

/// What one reply in front of `bytes` says: its error, and how long it is.
struct Said {
  bool understood = false;
  bool structured = false;
  std::uint32_t error = 0;
  std::optional<std::uint64_t> error_offset;
  std::size_t bytes = 0;
};

Said said(const Bytes& bytes, const CommandRule& c) {
  const bool has_data = c.command == Command::read;
  if (bytes.size() < SimpleReply::kBytes) return {};
  if (const auto simple = SimpleReply::decode(bytes.data())) {
    const auto error = static_cast<std::uint32_t>(simple->error);
    return {simple->cookie == 7, false, error, {}, 16 + (has_data && error == 0 ? c.length : 0u)};
  }
  const auto chunk = ChunkHeader::decode(bytes.data());
  if (!chunk || chunk->cookie != 7 || (chunk->flags & kChunkDone) == 0) return {};
  Said s{true, true, 0, {}, ChunkHeader::kBytes + chunk->length};
  if (static_cast<std::uint16_t>(chunk->type) >= 0x8000) s.error = load_be32(bytes.data() + 20);
  if (chunk->type == ChunkType::error_offset) s.error_offset = load_be64(&bytes[s.bytes - 8]);
  return s;
}

TEST(NbdSpec, Commands) {
  for (const bool structured : {false, true}) {
    for (const CommandRule& c : kCommandRules) {
      SCOPED_TRACE(std::string(c.rule) + (structured ? ", structured" : ", simple"));
      World world;
      world.device.change().read_only = c.read_only;
      Client client(world);
      client.go(structured);
      const Bytes payload(c.command == Command::write ? c.length : 0);
      const std::size_t sent = client.request(c.command, 7, c.offset, c.length, c.flags, payload);
      EXPECT_EQ(sent, RequestHeader::kBytes + payload.size());
      EXPECT_EQ(world.device.pending.size(), c.to_device ? 1u : 0u);
      if (c.to_device) {
        EXPECT_EQ(world.device.last.fua,
                  c.flags & kFua && c.command != Command::read && c.command != Command::flush);
        world.device.complete();
      }
      const Bytes answer = client.taken();
      const Said s = said(answer, c);
      EXPECT_TRUE(s.understood) << to_hex(answer);
      EXPECT_EQ(s.error, c.error);
      EXPECT_EQ(s.bytes, answer.size());
      // A READ is answered in a structured reply wherever they are agreed on, nothing is otherwise.
      if (!structured || c.command == Command::read) {
        EXPECT_EQ(s.structured, structured);
      }
      if (s.error_offset) {
        EXPECT_GE(*s.error_offset, c.offset);
        EXPECT_LT(*s.error_offset - c.offset, c.length);
      }
      // Whatever it was, the stream is in step.
      client.request(Command::flush, 8, 0, 0);
      EXPECT_EQ(world.device.pending.size(), 1u);
      EXPECT_FALSE(client.stream->was_reset || client.stream->finished);
    }
  }
}

TEST(NbdSpec, DontFragmentNeedsStructuredReplies) {
  World world;
  Client simple(world);
  simple.go(false);
  simple.request(Command::read, 7, 0, 512, kDf);
  EXPECT_EQ(said(simple.taken(), {"", Command::read}).error, 22u);
  Client structured(world);
  structured.go(true);
  structured.request(Command::read, 7, 0, kMax + 512, kDf);
  EXPECT_EQ(said(structured.taken(), {"", Command::read}).error, 75u);
}

TEST(NbdSpec, FastZeroThatIsNotFastIsRefusedByTheDevice) {
  World world;
  Client client(world);
  client.go();
  client.request(Command::write_zeroes, 7, 0, 512, kFastZero);
  world.device.complete(0, ENOTSUP);
  EXPECT_EQ(said(client.taken(), {"", Command::write_zeroes}).error, 95u);
}

TEST(NbdSpec, DisconnectHasNoReply) {
  World world;
  Client client(world);
  client.go();
  client.request(Command::disconnect, 7, 0, 0);
  EXPECT_TRUE(client.stream->finished);
  EXPECT_TRUE(client.taken().empty());
}

}  // namespace
}  // namespace nvmf::nbd
