// Namespaces that come, change and go while clients of the server are connected.
#include <gtest/gtest.h>

#include "frontends/nbd/protocol.h"
#include "frontends/nbd/server.h"
#include "loop_device.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using sim::ByteUser;
using sim::VirtualLoop;
using Bytes = std::vector<std::byte>;

const transport::Endpoint kAt{.host = "127.0.0.1", .port = 10809, .unix_path = {}};
constexpr std::size_t kGreeting = 18;
// The greeting, two INFO replies and the ACK.
constexpr std::size_t kGoAnswer = kGreeting + 32 + 34 + 20;

Bytes text_of(std::string_view s) {
  Bytes out(s.size());
  std::memcpy(out.data(), s.data(), s.size());
  return out;
}

/// The client's flags, then one option.
Bytes hello(Option option, const Bytes& data) {
  Bytes b(4 + OptionHeader::kBytes);
  store_be32(b.data(), kFixedNewstyle | kNoZeroes);
  OptionHeader{option, static_cast<std::uint32_t>(data.size())}.encode(b.data() + 4);
  b.insert(b.end(), data.begin(), data.end());
  return b;
}

Bytes go(std::string_view name) {
  Bytes data(4);
  store_be32(data.data(), static_cast<std::uint32_t>(name.size()));
  for (const std::byte b : text_of(name)) data.push_back(b);
  data.resize(data.size() + 2);  // no information is asked for
  return hello(Option::go, data);
}

class ServerNamespaces : public testing::Test {
 protected:
  ServerNamespaces() {
    device(2).change().name = "nvmf0n2";
    device(2).change().nsid = 2;
    server_ = std::make_unique<Server>(std::vector<transport::Loop*>{&loop_, &loop_}, ExportList{});
    EXPECT_TRUE(server_->listen(kAt).has_value());
    server_->attached(disk(1));
  }
  ~ServerNamespaces() override {
    bool stopped = false;
    server_->stop([&] { stopped = true; });
    EXPECT_TRUE(loop_.run_until([&] { return stopped; }, 60s));
  }

  test::LoopDevice& device(std::uint32_t nsid) { return nsid == 1 ? device_one_ : device_two_; }
  frontends::Disk disk(std::uint32_t nsid) {
    return {.info = device(nsid).info(), .devices = {&device(nsid), &device(nsid)}};
  }
  /// What a new client gets for `outgoing`.
  Bytes ask(const Bytes& outgoing) {
    ByteUser client;
    client.outgoing = outgoing;
    connect(client);
    leave(client);
    return client.incoming;
  }
  void connect(ByteUser& user) {
    user.stream = loop_.connect(kAt, {}, user);
    loop_.run_until_idle();
  }
  void leave(ByteUser& user) {
    user.stream->reset(Error{"done", ECANCELED});
    loop_.run_until_idle();
  }
  /// The size a new client is told; 0 if there is no such export.
  std::uint64_t size_of(std::string_view name) {
    const Bytes answer = ask(go(name));
    return answer.size() == kGoAnswer ? load_be64(answer.data() + kGreeting + 22) : 0;
  }
  std::vector<std::string> listed() {
    const Bytes answer = ask(hello(Option::list, {}));
    std::vector<std::string> names;
    std::size_t at = kGreeting;
    while (at + OptionReplyHeader::kBytes + 4 <= answer.size()) {
      const std::uint32_t length = load_be32(answer.data() + at + 16);
      const std::uint32_t name = load_be32(answer.data() + at + 20);
      const auto* text = reinterpret_cast<const char*>(answer.data() + at + 24);
      names.emplace_back(text, name);
      at += OptionReplyHeader::kBytes + length;
    }
    return names;
  }
  /// The reply's error to a request of a client that has negotiated.
  WireError reply_to(ByteUser& client, const RequestHeader& request) {
    const std::size_t before = client.incoming.size();
    Bytes head(RequestHeader::kBytes);
    request.encode(head.data());
    client.send(head);
    loop_.run_until_idle();
    EXPECT_GE(client.incoming.size(), before + SimpleReply::kBytes);
    if (client.incoming.size() < before + SimpleReply::kBytes) return WireError::eio;
    return SimpleReply::decode(client.incoming.data() + before)->error;
  }

  VirtualLoop loop_{5};
  std::shared_ptr<test::Disk> first_ = std::make_shared<test::Disk>(4 << 20);
  std::shared_ptr<test::Disk> second_ = std::make_shared<test::Disk>(2 << 20);
  test::LoopDevice device_one_{loop_, first_};
  test::LoopDevice device_two_{loop_, second_};
  std::unique_ptr<Server> server_;
};

using Names = std::vector<std::string>;

TEST_F(ServerNamespaces, OneThatComesIsThereForNewClientsAndDisturbsNoOther) {
  ByteUser old;
  old.outgoing = go("");
  connect(old);
  EXPECT_EQ(size_of("nvmf0n2"), 0u);
  EXPECT_EQ(listed(), Names{"nvmf0n1"});
  server_->attached(disk(2));
  // On every loop: clients are handed out in turn.
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(size_of("nvmf0n2"), 2u << 20);
    EXPECT_EQ(size_of("2"), 2u << 20);
    EXPECT_EQ(size_of(""), 4u << 20);
    EXPECT_EQ(listed(), (Names{"nvmf0n1", "nvmf0n2"}));
  }
  EXPECT_EQ(reply_to(old, {0, Command::flush, 1, 0, 0}), WireError::ok);
  EXPECT_FALSE(old.closed || old.eof);
  leave(old);
}

TEST_F(ServerNamespaces, WhoHasOneOpenThatGoesGetsItsErrorsAndStays) {
  server_->attached(disk(2));
  std::array<ByteUser, 2> holders;  // one on each loop
  for (ByteUser& holder : holders) {
    holder.outgoing = go("nvmf0n2");
    connect(holder);
  }
  server_->detached(2);
  second_->fail = EIO;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(size_of("nvmf0n2"), 0u);
    EXPECT_EQ(size_of("2"), 0u);
    EXPECT_EQ(size_of("1"), 4u << 20);
    EXPECT_EQ(listed(), Names{"nvmf0n1"});
  }
  for (ByteUser& holder : holders) {
    EXPECT_EQ(reply_to(holder, {0, Command::flush, 1, 0, 0}), WireError::eio);
    EXPECT_FALSE(holder.closed || holder.eof);
  }
  // It is back: for them, too.
  server_->attached(disk(2));
  second_->fail = 0;
  for (ByteUser& holder : holders) {
    EXPECT_EQ(reply_to(holder, {0, Command::flush, 2, 0, 0}), WireError::ok);
    leave(holder);
  }
  EXPECT_EQ(listed(), (Names{"nvmf0n1", "nvmf0n2"}));
}

TEST_F(ServerNamespaces, TheDefaultExportIsNeverAnotherDisk) {
  server_->attached(disk(2));
  server_->detached(1);
  EXPECT_EQ(size_of(""), 0u);
  EXPECT_EQ(listed(), Names{"nvmf0n2"});
  server_->attached(disk(1));
  EXPECT_EQ(size_of(""), 4u << 20);
  EXPECT_EQ(listed(), (Names{"nvmf0n1", "nvmf0n2"}));
}

TEST_F(ServerNamespaces, ANewSizeIsToldToNewClientsAndHeldAgainstOldOnes) {
  ByteUser old;
  old.outgoing = go("");
  connect(old);
  device_one_.change().size_bytes = 1 << 20;
  server_->changed(disk(1));
  EXPECT_EQ(size_of(""), 1u << 20);
  EXPECT_EQ(reply_to(old, {0, Command::read, 1, 2 << 20, 512}), WireError::einval);
  EXPECT_EQ(reply_to(old, {0, Command::flush, 2, 0, 0}), WireError::ok);
  leave(old);
}

}  // namespace
}  // namespace nvmf::nbd
