// What the programs say about times and about connections.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tool_health.h"
#include "tool_timers.h"

namespace nvmf::tools {
namespace {

using nlohmann::json;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(Seconds, AreReadAsPeopleWriteThem) {
  for (const auto& [text, ms] : {std::pair("10", 10'000), std::pair("0.2", 200), std::pair("0", 0),
                                 std::pair("0.0005", 1), std::pair("86400", 86'400'000)}) {
    const auto given = parse_seconds("-x", text, hours(24));
    ASSERT_TRUE(given) << text;
    EXPECT_EQ(*given, milliseconds(ms)) << text;
  }
  for (const char* bad : {"", " 1", "1 ", "-1", "-0.5", "1e3", "inf", "nan", "0x10", "1s", "86401",
                          "99999999999999999999999", "."}) {
    const auto given = parse_seconds("-x,--xyz", bad, hours(24));
    ASSERT_FALSE(given) << bad;
    EXPECT_TRUE(given.error().message.starts_with("-x,--xyz cannot be \""))
        << given.error().message;
    EXPECT_EQ(given.error().code, EINVAL);
  }
}

TEST(Seconds, MinusOneIsNeverWhereThatIsPossible) {
  const auto never = parse_seconds_or_never("-x", "-1", hours(24));
  ASSERT_TRUE(never);
  EXPECT_EQ(*never, std::nullopt);
  EXPECT_EQ(parse_seconds_or_never("-x", "3", hours(24)).value(), Duration(seconds(3)));
  EXPECT_FALSE(parse_seconds_or_never("-x", "-2", hours(24)));
}

TEST(TimerWords, ChangeWhatTheySayAndNothingElse) {
  host::LossPolicy before;
  before.fast_io_fail = seconds(7);
  EXPECT_EQ(TimerWords{}.applied_to(before).value(), before);
  const auto after = TimerWords{.reconnect_delay = "0.5", .ctrl_loss = "-1"}.applied_to(before);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->reconnect_delay, Duration(milliseconds(500)));
  EXPECT_EQ(after->ctrl_loss, std::nullopt);
  EXPECT_EQ(after->fast_io_fail, Duration(seconds(7)));
  EXPECT_FALSE(TimerWords{.reconnect_delay = "0"}.applied_to(before));
  EXPECT_FALSE(TimerWords{.reconnect_delay = "-1"}.applied_to(before));
}

TEST(TimerNotes, TellOfWritesThatAreGivenUpWhileTheyAreHeld) {
  host::LossPolicy policy;
  policy.ctrl_loss = seconds(5);
  const std::string note = note_about_hold(policy, milliseconds(20'300));
  EXPECT_NE(note.find("-l,--ctrl-loss-tmo 5 s is shorter than the 20 s "), std::string::npos)
      << note;
  EXPECT_NE(note.find("Give -l 21 or more"), std::string::npos) << note;
  EXPECT_EQ(note_about_hold(policy, seconds(5)), "");
  EXPECT_EQ(note_about_hold(policy, Duration::zero()), "") << "--no-fence";
  EXPECT_EQ(note_about_hold(policy, std::nullopt), "") << "no -l is long enough";
  policy.ctrl_loss.reset();
  EXPECT_EQ(note_about_hold(policy, seconds(20)), "");
}

TEST(Durations, AreShownShort) {
  for (const auto& [text, d] :
       {std::pair("0 s", Duration{}), std::pair("0.35 s", Duration(milliseconds(350))),
        std::pair("2.5 s", Duration(milliseconds(2500))), std::pair("2 s", Duration(seconds(2))),
        std::pair("9.99 s", Duration(milliseconds(9990))), std::pair("20 s", Duration(seconds(20))),
        std::pair("99 s", Duration(seconds(99))), std::pair("9 min 48 s", Duration(seconds(588))),
        std::pair("10 min", Duration(minutes(10))), std::pair("3 h 5 min", Duration(minutes(185))),
        std::pair("24 h", Duration(hours(24)))}) {
    EXPECT_EQ(show_duration(d), text);
  }
}

json live() {
  return {{"name", "nvmf0"}, {"state", "live"},        {"losses", 0},
          {"fence", true},   {"lost_for_ms", nullptr}, {"namespaces", json::array()}};
}

/// As it comes from a process.
std::string all_of(const json& status) {
  std::string all;
  for (const std::string& sentence : about_connection(json::parse(status.dump())))
    all += sentence + "\n";
  return all;
}

TEST(AboutConnection, NothingIsSaidWhereNothingIsWrong) {
  EXPECT_EQ(all_of(live()), "");
}

TEST(AboutConnection, ALossIsToldWithItsDeadlines) {
  json s = live();
  s["state"] = "lost";
  s["lost_for_ms"] = 12'000;
  s["last_loss"] = "the cable";
  s["attempts"] = 5;
  s["last_attempt"] = "nobody there";
  s["next_attempt_in_ms"] = 3000;
  s["io_fails_in_ms"] = 4000;
  s["gone_in_ms"] = 588'000;
  EXPECT_EQ(all_of(s),
            "nvmf0 lost its target 12 s ago: the cable\n"
            "nvmf0: it has tried to connect again 5 times, and the last attempt failed: nobody "
            "there; the next attempt is in 3 s\n"
            "nvmf0: requests wait, and fail with EIO in 4 s (-F); the connection is given up in 9 "
            "min 48 s (-l)\n");
  s["io_fails_in_ms"] = 0;
  s["gone_in_ms"] = nullptr;
  EXPECT_NE(all_of(s).find("requests fail with EIO until the target is back (-F); the connection "
                           "is never given up (-l -1)"),
            std::string::npos);
}

TEST(AboutConnection, FencesSayHowMuchAndUntilWhen) {
  json s = live();
  json ns = {{"name", "nvmf0n1"}, {"size_bytes", 1 << 20}, {"fence_count", 2}};
  ns["fences"] = {{{"offset_bytes", 0}, {"length_bytes", 4096}, {"lifts_in_ms", 2000}},
                  {{"offset_bytes", 8192}, {"length_bytes", 8192}, {"lifts_in_ms", 8000}}};
  s["namespaces"] = json::array({ns});
  EXPECT_EQ(
      all_of(s),
      "nvmf0n1: 2 ranges wait (12 KiB) for writes sent there earlier, which were not answered "
      "and may still be executed; the last may be written again in 8 s\n");
  s["namespaces"][0]["fences"][0]["never"] = true;
  EXPECT_NE(all_of(s).find("connect again with --no-fence"), std::string::npos);
  s["writes_held_for_ms"] = 20'000;  // says it for the whole namespace
  EXPECT_EQ(all_of(s),
            "nvmf0: all writes are held for another 20 s, because what an earlier connection had "
            "sent may still be executed; reads are served\n");
}

TEST(AboutConnection, TheRestIsToldToo) {
  json s = live();
  s["fence"] = false;
  s["losses"] = 2;
  s["last_loss"] = "the cable";
  s["namespaces"] = json::array(
      {{{"name", "nvmf0n1"}, {"stopped", "another disk"}, {"waiting", 1}, {"unflushed", 3}}});
  const std::string all = all_of(s);
  for (const char* part :
       {"was lost 2 times and is live again; the last reason: the cable", "--no-fence is on",
        "nvmf0n1 does not go on: another disk", "nvmf0n1: 1 request waits",
        "nvmf0n1: 3 writes were answered since the last flush"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " in\n" << all;
  }
}

TEST(AboutConnection, StrangeAnswersHarmNobody) {
  for (
      const char* text :
      {"{}", R"({"lost_for_ms":"x","namespaces":[1,null,{}],"losses":-1,"fence":3})",
       R"({"lost_for_ms":-5,"gone_in_ms":9223372036854775807,"state":[],"namespaces":{}})",
       R"({"name":"a\u001b[2J","lost_for_ms":1,"last_loss":"\u0007","namespaces":[{"fences":[7]}]})"}) {
    const std::string all = all_of(json::parse(text));
    EXPECT_EQ(all.find('\x1b'), std::string::npos) << text;
    EXPECT_EQ(all.find('\a'), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace nvmf::tools
