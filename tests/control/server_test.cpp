#include "control/server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "control/client.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"

namespace nvmf::control {
namespace {

using nlohmann::json;
using std::chrono::seconds;

const transport::Endpoint kSocket{.host = {}, .port = 0, .unix_path = "/run/nvmf0.sock"};

/// A call and what became of it.
struct Asked {
  std::unique_ptr<Call> call;
  std::optional<Result<void>> ok;
  json fields;
};

class ControlServer : public ::testing::Test {
 protected:
  void SetUp() override {
    server = std::make_unique<Server>(loop);
    server->handle("echo",
                   [](const json& args, Responder respond) { respond.succeed({{"args", args}}); });
    server->handle("later", [this](const json&, Responder respond) {
      held.push_back(std::make_unique<Responder>(std::move(respond)));
    });
    ASSERT_TRUE(server->listen(kSocket));
  }
  void TearDown() override {
    held.clear();
    if (server) stop();
    loop.shutdown();
  }
  void stop() {
    bool stopped = false;
    server->stop([&] { stopped = true; });
    EXPECT_TRUE(loop.run_until([&] { return stopped; }, seconds(5)));
    server.reset();
  }
  std::unique_ptr<Asked> ask(const std::string& verb, const json& args,
                             Duration timeout = seconds(5)) {
    auto asked = std::make_unique<Asked>();
    asked->call = std::make_unique<Call>(
        loop, kSocket, [a = asked.get()](const Result<void>& ok, const json& fields) {
          a->ok = ok;
          a->fields = fields;
        });
    asked->call->start(verb, args, timeout);
    return asked;
  }
  bool answered(const Asked& asked, Duration most = seconds(10)) {
    return loop.run_until([&] { return asked.ok.has_value(); }, most);
  }
  /// A client that speaks bytes.
  std::unique_ptr<sim::ByteUser> raw() {
    auto user = std::make_unique<sim::ByteUser>();
    user->outgoing.reserve(4 << 20);
    user->stream = loop.connect(kSocket, {}, *user);
    loop.run_until([&] { return user->opened; }, seconds(1));
    return user;
  }
  static std::vector<std::byte> bytes(std::string_view text) {
    const auto* p = reinterpret_cast<const std::byte*>(text.data());
    return {p, p + text.size()};
  }
  static std::string text(const sim::ByteUser& user) {
    return {reinterpret_cast<const char*>(user.incoming.data()), user.incoming.size()};
  }

  sim::VirtualLoop loop;
  std::unique_ptr<Server> server;
  std::vector<std::unique_ptr<Responder>> held;
};

TEST_F(ControlServer, Answers) {
  const auto asked = ask("echo", {{"x", 1}});
  ASSERT_TRUE(answered(*asked));
  ASSERT_TRUE(*asked->ok);
  EXPECT_EQ(asked->fields["args"], (json{{"x", 1}}));
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, RefusesAnUnknownVerbByName) {
  const auto asked = ask("explode", json::object());
  ASSERT_TRUE(answered(*asked));
  ASSERT_FALSE(*asked->ok);
  EXPECT_NE(asked->ok->error().message.find("explode"), std::string::npos);
}

TEST_F(ControlServer, AnswersLaterAndOthersMeanwhile) {
  const auto slow = ask("later", json::object(), seconds(200));
  const auto quick = ask("echo", json::object());
  ASSERT_TRUE(answered(*quick));
  EXPECT_TRUE(*quick->ok);
  // The time that a handler takes is not the client's fault.
  loop.run_for(kClientPatience * 2);
  ASSERT_FALSE(slow->ok);
  ASSERT_EQ(held.size(), 1u);
  held.front()->succeed({{"n", 3}});
  ASSERT_TRUE(answered(*slow));
  EXPECT_EQ(slow->fields["n"], 3);
}

TEST_F(ControlServer, SeveralRequestsOfOneClientAreAnsweredInOrder) {
  auto user = raw();
  const std::string one = request_line("later", json::object());
  user->send(bytes(one + request_line("echo", {{"i", 2}}) + request_line("nope", {})));
  loop.run_for(seconds(1));
  EXPECT_EQ(text(*user), "");  // the second waits for the first
  ASSERT_EQ(held.size(), 1u);
  held.front()->succeed({{"i", 1}});
  loop.run_for(seconds(1));
  const std::string lines = text(*user);
  const auto first = lines.find("\"i\":1");
  const auto second = lines.find("\"i\":2");
  EXPECT_LT(first, second);
  EXPECT_LT(second, lines.find("nope"));
  user->stream->reset({"done"});
  loop.run_for(seconds(1));
}

TEST_F(ControlServer, ARequestMayComeByteByByteAndEndWithFin) {
  loop.pipe.max_chunk = 1;
  auto user = raw();
  user->send(bytes(request_line("echo", {{"i", 2}})));
  user->stream->finish(seconds(5));
  loop.run_for(seconds(2));
  EXPECT_NE(text(*user).find("\"i\":2"), std::string::npos);
  EXPECT_TRUE(user->closed);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, ATooLongLineIsRefusedAndTheClientIsLetGo) {
  auto user = raw();
  user->send(std::vector<std::byte>(kRequestBytesMax + 100, std::byte{'x'}));
  loop.run_for(seconds(5));
  EXPECT_NE(text(*user).find("at most"), std::string::npos);
  EXPECT_TRUE(user->closed);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, NonsenseIsAnsweredAndTheNextRequestServed) {
  auto user = raw();
  user->send(bytes("GET / HTTP/1.1\n" + request_line("echo", {{"i", 2}})));
  loop.run_for(seconds(1));
  EXPECT_NE(text(*user).find("\"ok\":false"), std::string::npos);
  EXPECT_NE(text(*user).find("\"i\":2"), std::string::npos);
  user->stream->reset({"done"});
  loop.run_for(seconds(1));
}

TEST_F(ControlServer, SilentClientsAreCutOffAlsoIfTheyTrickle) {
  auto silent = raw();
  auto trickling = raw();
  for (int i = 0; i < 40; ++i) {
    if (!trickling->closed) trickling->send(bytes("x"));
    loop.run_for(seconds(1));
  }
  EXPECT_TRUE(silent->closed);
  EXPECT_TRUE(trickling->closed);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, AClientThatDoesNotReadIsCutOff) {
  loop.pipe.window_bytes = 1024;
  server->handle("big", [](const json&, Responder respond) {
    respond.succeed({{"data", std::string(100'000, 'x')}});
  });
  auto user = raw();
  user->room = 0;
  user->send(bytes(request_line("big", json::object())));
  loop.run_for(kClientPatience + seconds(5));
  EXPECT_TRUE(user->closed);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, AClientThatAsksAndDoesNotReadIsServedNoFurther) {
  loop.pipe.window_bytes = 1024;
  int served = 0;
  server->handle("big", [&served](const json&, Responder respond) {
    ++served;
    respond.succeed({{"data", std::string(100'000, 'x')}});
  });
  auto user = raw();
  user->room = 0;
  std::string many;
  for (int i = 0; i < 100; ++i) many += request_line("big", json::object());
  user->send(bytes(many));
  loop.run_for(kClientPatience + seconds(5));
  EXPECT_EQ(served, 1);
  EXPECT_TRUE(user->closed);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, HungClientsMakeRoomForOthers) {
  std::vector<std::unique_ptr<sim::ByteUser>> crowd;
  for (std::size_t i = 0; i < kClientsMax; ++i) crowd.push_back(raw());
  EXPECT_EQ(server->clients(), kClientsMax);
  const auto asked = ask("echo", {{"x", 1}});
  ASSERT_TRUE(answered(*asked, seconds(1)));
  EXPECT_TRUE(*asked->ok);
  loop.run_for(seconds(1));
  EXPECT_TRUE(crowd.front()->closed);  // the one that was silent longest
  EXPECT_FALSE(crowd.back()->closed);
  for (auto& user : crowd) {
    if (!user->closed) user->stream->reset({"done"});
  }
  loop.run_for(seconds(1));
}

TEST_F(ControlServer, TheClientGivesUpInTime) {
  const auto asked = ask("later", json::object(), seconds(2));
  EXPECT_FALSE(answered(*asked, seconds(1)));
  ASSERT_TRUE(answered(*asked, seconds(2)));
  ASSERT_FALSE(*asked->ok);
  EXPECT_EQ(asked->ok->error().code, ETIMEDOUT);
  loop.run_for(seconds(1));
  held.front()->succeed(json::object());  // nobody is there any more
}

TEST_F(ControlServer, ADroppedResponderAnswers) {
  const auto asked = ask("later", json::object());
  loop.run_for(seconds(1));
  held.clear();
  ASSERT_TRUE(answered(*asked));
  ASSERT_FALSE(*asked->ok);
  EXPECT_EQ(asked->ok->error().code, ESHUTDOWN);
}

TEST_F(ControlServer, StopDeliversTheLastAnswerAndEndsInTime) {
  auto idle = raw();
  const auto asked = ask("later", json::object());
  loop.run_for(seconds(1));
  held.front()->succeed({{"pid", 9}});
  bool stopped = false;
  const Instant before = loop.now();
  server->stop([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  ASSERT_TRUE(loop.run_until([&] { return stopped; }, seconds(5)));
  EXPECT_LE(loop.now() - before, 2 * kStopGrace);
  server.reset();
  ASSERT_TRUE(answered(*asked));
  EXPECT_TRUE(*asked->ok);
  EXPECT_TRUE(idle->closed);
}

TEST_F(ControlServer, StopDoesNotWaitForAHandlerThatHangs) {
  const auto asked = ask("later", json::object());
  loop.run_for(seconds(1));
  stop();
  ASSERT_TRUE(answered(*asked));
  EXPECT_FALSE(*asked->ok);
  held.front()->succeed(json::object());  // after the server is gone
}

}  // namespace
}  // namespace nvmf::control
