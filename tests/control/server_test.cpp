#include "control/server.h"

#include <gtest/gtest.h>

#include <algorithm>
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
    // Gives back what it was given, backwards.
    server->handle_payload("turn", [](const json&, Server::Payload payload, Responder respond) {
      std::ranges::reverse(payload.bytes);
      payload.bytes.resize(std::min(payload.bytes.size(), payload.room_bytes));
      respond.succeed({{"room", payload.room_bytes}}, std::move(payload.bytes));
    });
    server->handle_payload("keep", [this](const json&, Server::Payload payload, Responder respond) {
      kept.push_back(std::move(payload.bytes));
      held.push_back(std::make_unique<Responder>(std::move(respond)));
    });
    server->handle("follow", [this](const json&, Responder respond) {
      if (auto follower = respond.succeed_and_follow({{"now", 0}})) {
        followers.push_back(std::move(*follower));
      }
    });
    ASSERT_TRUE(server->listen(kSocket));
  }
  void TearDown() override {
    held.clear();
    followers.clear();
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
  std::vector<std::vector<std::byte>> kept;
  std::vector<Follower> followers;
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
  const std::string one = request_line({.verb = "later"}, json::object());
  user->send(bytes(one + request_line({.verb = "echo"}, {{"i", 2}}) +
                   request_line({.verb = "nope"}, json::object())));
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
  user->send(bytes(request_line({.verb = "echo"}, {{"i", 2}})));
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
  user->send(bytes("GET / HTTP/1.1\n" + request_line({.verb = "echo"}, {{"i", 2}})));
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
  user->send(bytes(request_line({.verb = "big"}, json::object())));
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
  for (int i = 0; i < 100; ++i) many += request_line({.verb = "big"}, json::object());
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

TEST_F(ControlServer, PayloadsGoBothWays) {
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20}) {
    loop.pipe.max_chunk = chunk;
    std::vector<std::byte> payload(10'000);
    for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = std::byte(i * 7);
    std::vector<std::byte> answer;
    bool done = false;
    Call call(loop, kSocket, [&](const Result<void>& ok, const json& fields) {
      EXPECT_TRUE(ok);
      EXPECT_EQ(fields["room"], 20'000);
      answer = call.take_payload();
      done = true;
    });
    call.attach_payload(payload, 20'000);
    call.start("turn", json::object(), seconds(20));
    ASSERT_TRUE(loop.run_until([&] { return done; }, seconds(20)));
    std::ranges::reverse(payload);
    EXPECT_EQ(answer, payload);
  }
  loop.run_for(seconds(1));
  EXPECT_EQ(server->payload_bytes(), 0u);
}

TEST_F(ControlServer, RequestsWithPayloadsFollowEachOther) {
  auto user = raw();
  const std::string one =
      request_line({.verb = "turn", .payload_bytes = 4, .room_bytes = 4}, json::object()) + "ab\nc";
  user->send(bytes(one + one + request_line({.verb = "echo"}, {{"i", 2}})));
  loop.run_for(seconds(1));
  const std::string all = text(*user);
  const auto first = all.find("c\nba");
  ASSERT_NE(first, std::string::npos);
  EXPECT_NE(all.find("c\nba", first + 1), std::string::npos);
  EXPECT_NE(all.find("\"i\":2"), std::string::npos);
  user->stream->reset({"done"});
  loop.run_for(seconds(1));
}

TEST_F(ControlServer, APayloadForAVerbThatTakesNoneIsRefused) {
  auto user = raw();
  user->send(bytes(request_line({.verb = "echo", .payload_bytes = 4}, json::object()) + "abcd"));
  loop.run_for(seconds(1));
  EXPECT_NE(text(*user).find("takes no payload"), std::string::npos);
  EXPECT_TRUE(user->closed);  // where the next line begins is anybody's guess
}

TEST_F(ControlServer, AnnouncingTooMuchIsRefused) {
  auto user = raw();
  user->send(bytes(R"({"version":2,"verb":"turn","payload_bytes":99999999})"
                   "\nxyz"));
  loop.run_for(seconds(1));
  EXPECT_NE(text(*user).find("payload_bytes"), std::string::npos);
  EXPECT_TRUE(user->closed);
}

TEST_F(ControlServer, MemoryForPayloadsIsBoundedAndHandedOutInOrder) {
  constexpr std::size_t kFit = kPayloadsBytesMax / kPayloadBytesMax;
  std::vector<std::unique_ptr<Asked>> large;
  for (std::size_t i = 0; i < kFit + 2; ++i) {
    auto asked = std::make_unique<Asked>();
    asked->call = std::make_unique<Call>(
        loop, kSocket, [a = asked.get()](const Result<void>& ok, const json&) { a->ok = ok; });
    asked->call->attach_payload({}, kPayloadBytesMax);
    asked->call->start("keep", json::object(), seconds(100));
    large.push_back(std::move(asked));
    loop.run_for(seconds(1));
  }
  EXPECT_EQ(held.size(), kFit);
  EXPECT_EQ(server->payload_bytes(), kPayloadsBytesMax);
  // Those who ask for nothing large are served meanwhile.
  const auto small = ask("echo", json::object());
  ASSERT_TRUE(answered(*small));
  EXPECT_TRUE(*small->ok);
  held.front()->succeed(json::object());
  loop.run_for(seconds(1));
  EXPECT_EQ(held.size(), kFit + 1);
  // The memory of a client that has gone is in use as long as somebody works with it.
  large[1]->call->stop();
  loop.run_for(seconds(1));
  EXPECT_EQ(held.size(), kFit + 1);
  held[1].reset();
  loop.run_for(seconds(1));
  EXPECT_EQ(held.size(), kFit + 2);
  held.clear();
  loop.run_for(seconds(1));
  EXPECT_EQ(server->payload_bytes(), 0u);
}

TEST_F(ControlServer, AClientThatAnnouncesAndSendsNothingIsCutOff) {
  auto user = raw();
  user->send(bytes(request_line({.verb = "turn", .payload_bytes = 100}, json::object()) + "abc"));
  loop.run_for(kClientPatience / 2);
  EXPECT_EQ(server->payload_bytes(), 100u);
  loop.run_for(kClientPatience);
  EXPECT_TRUE(user->closed);
  EXPECT_EQ(server->payload_bytes(), 0u);
}

TEST_F(ControlServer, OnlyItsOwnerAndRootGetIn) {
  server->admit_only(1000);
  for (const auto& [uid, served] : {std::pair(1000u, true), {0u, true}, {1001u, false}}) {
    loop.client_uid = uid;
    const auto asked = ask("echo", json::object());
    ASSERT_TRUE(answered(*asked));
    EXPECT_EQ(asked->ok->has_value(), served) << uid;
  }
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, FollowersAreToldUntilTheyGo) {
  std::vector<json> news;
  bool done = false;
  Call call(loop, kSocket, [&](const Result<void>& ok, const json&) {
    EXPECT_TRUE(ok);
    done = true;
  });
  call.follow([&](const json& answer) { EXPECT_EQ(answer["now"], 0); },
              [&](const json& n) { news.push_back(n); });
  call.start("follow", json::object(), seconds(5));
  loop.run_for(2 * kClientPatience);  // silence is no fault of a follower
  ASSERT_EQ(followers.size(), 1u);
  EXPECT_TRUE(followers[0].tell({{"n", 1}}));
  EXPECT_TRUE(followers[0].tell({{"n", 2}}));
  loop.run_for(seconds(1));
  EXPECT_EQ(news, (std::vector<json>{{{"n", 1}}, {{"n", 2}}}));
  call.stop();
  loop.run_for(seconds(1));
  EXPECT_TRUE(done);
  EXPECT_FALSE(followers[0].tell({{"n", 3}}));
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ControlServer, AFollowerThatDoesNotReadMissesNewsAndIsTold) {
  loop.pipe.window_bytes = 1024;
  auto user = raw();
  user->send(bytes(request_line({.verb = "follow"}, json::object())));
  loop.run_for(seconds(1));
  ASSERT_EQ(followers.size(), 1u);
  user->room = 0;
  const json large = {{"text", std::string(1000, 'x')}};
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(followers[0].tell(large));
  user->room = 1u << 20;
  user->stream->wake();
  loop.run_for(seconds(5));
  EXPECT_NE(text(*user).find("{\"missed\":"), std::string::npos);
  EXPECT_LT(text(*user).size(), 2 * kFollowerBacklogBytesMax);
  user->stream->reset({"done"});
  loop.run_for(seconds(1));
}

TEST_F(ControlServer, FollowersHaveALimitAndMaySayNothing) {
  std::vector<std::unique_ptr<sim::ByteUser>> crowd;
  for (std::size_t i = 0; i <= kFollowersMax; ++i) {
    crowd.push_back(raw());
    crowd.back()->send(bytes(request_line({.verb = "follow"}, json::object())));
    loop.run_for(seconds(1));
  }
  EXPECT_EQ(followers.size(), kFollowersMax);
  EXPECT_NE(text(*crowd.back()).find("the most"), std::string::npos);
  crowd[0]->send(bytes("hello\n"));
  loop.run_for(seconds(1));
  EXPECT_TRUE(crowd[0]->closed);
  const auto next = raw();
  next->send(bytes(request_line({.verb = "follow"}, json::object())));
  loop.run_for(seconds(1));
  EXPECT_EQ(followers.size(), kFollowersMax + 1);  // the first one's place
  followers.clear();
  loop.run_for(seconds(1));
  EXPECT_TRUE(next->closed);
  for (auto& user : crowd) {
    if (!user->closed) user->stream->reset({"done"});
  }
  loop.run_for(seconds(1));
}

}  // namespace
}  // namespace nvmf::control
