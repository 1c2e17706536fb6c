// What a connection keeps of its events, and of those who follow them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "connection_events.h"
#include "control/client.h"
#include "sim/virtual_loop.h"

namespace nvmf::tools {
namespace {

using nlohmann::json;

TEST(EventBoard, KeepsNoMoreThanAnAnswerHoldsWhateverTheControllerLists) {
  EventBoard board("nvmf0");
  host::HostEvent event{.kind = host::EventKind::ana_changed};
  event.ana.emplace().groups.resize(kEventNsidsShown);
  for (int i = 0; i < 32; ++i) board.happened(event);
  const std::size_t bytes = event_to_json(event, "nvmf0").dump().size();
  EXPECT_EQ(board.kept(), kEventBytesKept / bytes);
  for (std::size_t i = 0; i < 2 * kEventsKept; ++i) board.happened({});
  EXPECT_EQ(board.kept(), kEventsKept);
}

TEST(EventBoard, ForgetsFollowersThatHaveGoneAlsoWhenNothingHappens) {
  const transport::Endpoint at{.host = {}, .port = 0, .unix_path = "/run/nvmf0.sock"};
  sim::VirtualLoop loop;
  EventBoard board("nvmf0");
  control::Server server(loop);
  server.handle("events", [&board](const json& args, control::Responder respond) {
    board.serve(args, {}, std::move(respond));
  });
  ASSERT_TRUE(server.listen(at));
  for (int i = 0; i < 100; ++i) {
    bool ended = false;
    control::Call call(loop, at, [&ended](const Result<void>&, const json&) { ended = true; });
    call.follow([&call](const json&) { call.stop(); }, [](const json&) {});
    call.start("events", {{"follow", true}}, std::chrono::seconds(5));
    ASSERT_TRUE(
        loop.run_until([&] { return ended && server.clients() == 0; }, std::chrono::seconds(10)));
  }
  EXPECT_EQ(board.followers(), 1u);
  board.close();
  bool stopped = false;
  server.stop([&stopped] { stopped = true; });
  EXPECT_TRUE(loop.run_until([&] { return stopped; }, std::chrono::seconds(5)));
  loop.shutdown();
}

}  // namespace
}  // namespace nvmf::tools
