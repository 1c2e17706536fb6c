#include "control/protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace nvmf::control {
namespace {

using nlohmann::json;

TEST(ControlProtocol, RequestsAreReadBack) {
  const std::string line = request_line({.verb = "identify"}, {{"cns", 1}, {"nsid", 7}});
  ASSERT_TRUE(line.ends_with('\n'));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  json args;
  const auto request = parse_request(line, args);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->verb, "identify");
  EXPECT_EQ(request->payload_bytes, 0u);
  EXPECT_EQ(request->room_bytes, 0u);
  EXPECT_EQ(args, (json{{"cns", 1}, {"nsid", 7}}));
}

TEST(ControlProtocol, PayloadsAreAnnouncedWithinTheirLimit) {
  json args;
  const auto request = parse_request(
      request_line({.verb = "passthrough", .payload_bytes = 512, .room_bytes = kPayloadBytesMax},
                   json::object()),
      args);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->payload_bytes, 512u);
  EXPECT_EQ(request->room_bytes, kPayloadBytesMax);
  for (const char* bytes : {"4194305", "-1", "\"1\"", "1.5", "null"}) {
    const auto refused = parse_request(
        R"({"version":2,"verb":"x","payload_bytes":)" + std::string(bytes) + "}", args);
    ASSERT_FALSE(refused) << bytes;
    EXPECT_EQ(refused.error().code, EMSGSIZE);
  }
  json fields;
  EXPECT_EQ(parse_response(success_line(json::object(), 4096), "x", fields).value_or(0), 4096u);
  EXPECT_FALSE(parse_response(R"({"ok":true,"payload_bytes":5000000})", "x", fields));
}

TEST(ControlProtocol, NewsIsAnObjectALine) {
  json news;
  ASSERT_TRUE(parse_news(news_line({{"event", "lost"}}), "x", news));
  EXPECT_EQ(news["event"], "lost");
  ASSERT_TRUE(parse_news(missed_line(3), "x", news));
  EXPECT_EQ(news["missed"], 3);
  EXPECT_FALSE(parse_news("[]", "x", news));
}

TEST(ControlProtocol, ArgsMayBeMissing) {
  json args;
  ASSERT_TRUE(parse_request(R"({"version":1,"verb":"status"})", args));
  EXPECT_TRUE(args.is_object());
  EXPECT_TRUE(args.empty());
}

TEST(ControlProtocol, WhatIsNoRequestIsRefusedWithASentence) {
  const struct {
    const char* line;
    const char* says;
  } cases[] = {
      {"", "JSON object"},
      {"hello", "JSON object"},
      {"[1]", "JSON object"},
      {R"({"version":1,)", "JSON object"},
      {R"({"verb":"status"})", "version is missing"},
      {R"({"version":3,"verb":"status"})", "version is 3"},
      {R"({"version":0,"verb":"status"})", "version is 0"},
      {R"({"version":"1","verb":"status"})", "version is \"1\""},
      {R"({"version":1})", "no verb"},
      {R"({"version":1,"verb":7})", "no verb"},
      {R"({"version":1,"verb":"status","args":[]})", "args are not an object"},
  };
  for (const auto& c : cases) {
    json args;
    const auto verb = parse_request(c.line, args);
    ASSERT_FALSE(verb) << c.line;
    EXPECT_NE(verb.error().message.find(c.says), std::string::npos) << verb.error().message;
  }
}

/// `depth` arrays in each other, in a request's args.
std::string nested(std::size_t depth) {
  return R"({"version":1,"verb":"x","args":{"a":)" + std::string(depth, '[') +
         std::string(depth, ']') + "}}";
}

TEST(ControlProtocol, NestingHasALimit) {
  json args;
  EXPECT_TRUE(parse_request(nested(kNestingMax - 2), args));
  const auto deeper = parse_request(nested(kNestingMax - 1), args);
  ASSERT_FALSE(deeper);
  EXPECT_NE(deeper.error().message.find("nested deeper"), std::string::npos);
  // A line of a MiB costs its bytes, not a tree.
  EXPECT_FALSE(parse_request(std::string(kLineBytesMax, '['), args));
  EXPECT_FALSE(parse_request(nested(500'000), args));
  json fields;
  EXPECT_FALSE(parse_response(
      R"({"ok":true,"a":)" + std::string(100, '[') + std::string(100, ']') + "}", "x", fields));
}

TEST(ControlProtocol, BracketsInStringsAreNoNesting) {
  const std::string brackets(100, '[');
  json args;
  EXPECT_TRUE(parse_request(
      R"({"version":1,"verb":"x","args":{"\\\"]":"\\","b":")" + brackets + R"("}})", args));
  EXPECT_EQ(args["b"], brackets);
  EXPECT_FALSE(
      parse_request(R"({"version":1,"verb":"x","args":{"a":"\\","b":)" + brackets + "}}", args));
}

TEST(ControlProtocol, ResponsesCarryFieldsOrTheError) {
  json fields;
  EXPECT_TRUE(parse_response(success_line({{"pid", 5}}), "nvmf0", fields));
  EXPECT_EQ(fields["pid"], 5);
  const auto refused = parse_response(failure_line({"no such namespace", ENODEV}), "nvmf0", fields);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "no such namespace");
  EXPECT_EQ(refused.error().code, ENODEV);
  for (const char* line : {"", "HTTP/1.1 400", "{}", R"({"ok":"yes"})", "[]"}) {
    const auto other = parse_response(line, "/run/x.sock", fields);
    ASSERT_FALSE(other) << line;
    EXPECT_NE(other.error().message.find("/run/x.sock"), std::string::npos);
  }
}

TEST(ControlProtocol, AMessageCannotSteerTheTerminal) {
  json fields;
  const auto refused = parse_response(failure_line({"\x1b[2J", EIO}), "x", fields);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message.find('\x1b'), std::string::npos);
}

TEST(ControlProtocol, BytesThatAreNoTextAreSentAllTheSame) {
  EXPECT_TRUE(success_line({{"model", "\xff\xfe"}}).ends_with("\n"));
}

TEST(ControlProtocol, NumbersAreCheckedAgainstTheirRange) {
  const json args = {{"a", 255u}, {"b", 256u}, {"c", -1}, {"d", "1"}, {"e", 1.5}};
  EXPECT_EQ(unsigned_arg(args, "a", 255, 0).value_or(0), 255u);
  EXPECT_EQ(unsigned_arg(args, "missing", 255, 9).value_or(0), 9u);
  for (const char* key : {"b", "c", "d", "e"}) EXPECT_FALSE(unsigned_arg(args, key, 255, 0)) << key;
}

}  // namespace
}  // namespace nvmf::control
