// What `nvmf explain` says of whatever it is given.
#include "tool_explain.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "io/error_words.h"
#include "transport/tcp/term_words.h"

namespace nvmf::tools {
namespace {

using nlohmann::json;

ExplainWords status_words(std::vector<std::string> text,
                          std::optional<nvme::StatusContext> context = {}) {
  ExplainWords words;
  words.status = std::move(text);
  words.context = context;
  return words;
}

std::vector<std::string> lines_of(const ExplainWords& words) {
  const auto found = explanation(words);
  EXPECT_TRUE(found) << found.error().message;
  return found ? found->lines : std::vector<std::string>{};
}

std::string first_of(const ExplainWords& words) {
  const auto lines = lines_of(words);
  return lines.empty() ? std::string() : lines.front();
}

std::string refusal_of(const ExplainWords& words) {
  const auto found = explanation(words);
  EXPECT_FALSE(found);
  if (found) return {};
  EXPECT_EQ(found.error().code, EINVAL);
  EXPECT_TRUE(found.error().message.contains("try ")) << found.error().message;
  EXPECT_EQ(found.error().message.find('\x1b'), std::string::npos);
  return found.error().message;
}

TEST(Explain, AStatusIsOneSentenceAndWhatItsFlagsSay) {
  const auto lines = lines_of(status_words({"0x6002"}));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_TRUE(lines[0].starts_with("Invalid Field in Command (0/02h, INVALID_FIELD): a field "));
  EXPECT_TRUE(lines[0].contains("; try it without the option"));
  EXPECT_TRUE(lines[1].starts_with("Do Not Retry is set"));
  EXPECT_TRUE(lines[2].starts_with("More is set"));
  EXPECT_EQ(
      lines_of(status_words({"0"})),
      std::vector<std::string>{"Successful Completion (0/00h, SUCCESS): the command was done"});
}

TEST(Explain, WordsOfAStatusNeedNoQuotes) {
  EXPECT_TRUE(first_of(status_words({"sct", "0x2", "sc", "0x81"}))
                  .starts_with("Unrecovered Read Error (2/81h, READ_ERROR): "));
  ExplainWords words = status_words({"0x80050007"});
  words.cqe = true;
  EXPECT_TRUE(first_of(words).starts_with("Invalid Field in Command (0/02h"));
}

TEST(Explain, NobodyKnowsTheFlagsOfANameOrOfTypeAndCode) {
  for (const char* text : {"READ_ERROR", "2/81h"}) {
    EXPECT_EQ(lines_of(status_words({text})).size(), 1U) << text;
  }
  // Linux writes DNR when it is set.
  const auto lines = lines_of(status_words({"sct 0x2 / sc 0x81"}));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_TRUE(lines[1].starts_with("Do Not Retry is not set"));
}

TEST(Explain, TheCommandDecidesAmongMeanings) {
  const auto all = lines_of(status_words({"1/80h"}));
  ASSERT_EQ(all.size(), 2U);
  EXPECT_TRUE(all[0].starts_with("For I/O commands: Conflicting Attributes (1/80h, "));
  EXPECT_TRUE(all[1].starts_with("For fabrics commands: Incompatible Format (1/80h, "));
  EXPECT_TRUE(first_of(status_words({"1/80h"}, nvme::StatusContext::fabrics))
                  .starts_with("Incompatible Format (1/80h"));
  EXPECT_TRUE(first_of(status_words({"1/80h"}, nvme::StatusContext::nvm))
                  .starts_with("Conflicting Attributes (1/80h"));
  // A name says by itself of which it is.
  EXPECT_TRUE(first_of(status_words({"CONNECT_FORMAT"})).starts_with("Incompatible Format"));
}

TEST(Explain, JsonHasTheSame) {
  const auto found = explanation(status_words({"0x4180"}));
  ASSERT_TRUE(found);
  const json doc = json::parse(found->json);
  EXPECT_EQ(doc["status"], 0x4180);
  EXPECT_EQ(doc["sct"], 1);
  EXPECT_EQ(doc["sc"], 0x80);
  EXPECT_EQ(doc["dnr"], true);
  EXPECT_EQ(doc["more"], false);
  EXPECT_EQ(doc["meanings"].size(), 2U);
  EXPECT_EQ(doc["meanings"][1]["commands"], "fabrics");
  EXPECT_EQ(doc["meanings"][1]["symbol"], "CONNECT_FORMAT");
  EXPECT_TRUE(doc["nvme_cli"].get_ref<const std::string&>().ends_with("(0x4180)"));
  EXPECT_EQ(doc["notes"].size(), 1U);
  EXPECT_TRUE(json::parse(explanation(status_words({"0"}))->json)["meanings"][0]["try"].is_null());
}

TEST(Explain, NumbersWithoutAMeaningAreRefused) {
  EXPECT_TRUE(refusal_of(status_words({"0x50"})).starts_with("status 0/50h (0x50) cannot be"));
  EXPECT_TRUE(refusal_of(status_words({"4/01h"})).contains("NVMe Base 2.3"));
  EXPECT_TRUE(refusal_of(status_words({"nonsense", "\x1b[2J"})).contains("nonsense"));
  EXPECT_TRUE(refusal_of(status_words({"0x80050007"})).contains("--cqe"));
  ExplainWords words = status_words({"INVALID_FIELD"});
  words.cqe = true;
  refusal_of(words);
}

TEST(Explain, ErrorsOfTheSystem) {
  const std::string refused =
      "ECONNREFUSED (111): nothing listens at that address and port; try to start the target "
      "there, or the port that it listens on: 4420, or 8009 for discovery";
  EXPECT_EQ(first_of(status_words({"ECONNREFUSED"})), refused);
  ExplainWords words;
  for (const char* text : {"111", "ECONNREFUSED", "econnrefused", "0x6f"}) {
    words.system_error = text;
    EXPECT_EQ(first_of(words), refused);
  }
  words.system_error = "EXDEV";  // nothing that connections meet
  EXPECT_TRUE(first_of(words).contains("; try "));
  for (const char* text : {"0", "-1", "4096", "99999999999", "EWHATEVER", "134", "\x1b"}) {
    words.system_error = text;
    refusal_of(words);
  }
}

TEST(ErrnoWords, AreWellFormed) {
  std::set<int> codes;
  for (int code = 0; code < 4096; ++code) {
    const io::ErrnoWords* words = io::errno_words(code);
    if (words == nullptr) continue;
    EXPECT_TRUE(codes.insert(code).second);
    EXPECT_NE(::strerrorname_np(code), nullptr);
    EXPECT_EQ(io::errno_from_name(::strerrorname_np(code)), code);
    for (const std::string_view text : {words->meaning, words->hint}) {
      EXPECT_FALSE(text.empty());
      EXPECT_EQ(text.find('\n'), text.npos);
      EXPECT_NE(text.back(), '.');
      EXPECT_FALSE(text.starts_with("try"));
    }
  }
  for (const int code : {ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, ECONNRESET, ENETUNREACH,
                         EADDRNOTAVAIL, EACCES, EPIPE, EIO, EPROTO, EKEYREJECTED}) {
    EXPECT_TRUE(codes.contains(code)) << code;
  }
  EXPECT_EQ(io::errno_from_name("EOPNOTSUPP"), EOPNOTSUPP);
  EXPECT_EQ(io::errno_from_name("EWOULDBLOCK"), EAGAIN);
  EXPECT_EQ(io::errno_from_name(""), std::nullopt);
}

TEST(Explain, TerminateRequests) {
  ExplainWords words;
  words.term_req = "1:8";
  const auto lines = lines_of(words);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_TRUE(lines[0].starts_with("Invalid PDU Header Field (FES 1, field offset 8): a field "));
  EXPECT_TRUE(lines[1].starts_with("Byte 8 is PFV of ICReq, PFV of ICResp, FES of H2CTermReq"));
  EXPECT_TRUE(lines[1].contains("CCCID of R2T"));
  words.term_req = "5";
  const auto limits = lines_of(words);
  ASSERT_EQ(limits.size(), 2U);
  EXPECT_TRUE(limits[0].starts_with("From a controller: Data Transfer Limit Exceeded (FES 5): "));
  EXPECT_TRUE(limits[1].starts_with("From a host: R2T Limit Exceeded (FES 5): "));
  words.term_req = "6:0xffffffff";
  EXPECT_EQ(lines_of(words).back(), "Byte 4294967295 is no field of a PDU's header");
  EXPECT_EQ(json::parse(explanation(words)->json)["fei"], 4294967295U);
  for (const char* text : {"0", "7", "1:", ":8", "1:4294967296", "x", "1:8:9"}) {
    words.term_req = text;
    refusal_of(words);
  }
}

TEST(Explain, ConnectNamesTheParameter) {
  ExplainWords words;
  words.connect = "0x10100";
  EXPECT_EQ(first_of(words),
            "The target finds fault with the subsystem NQN (SUBNQN), byte 256 of the Connect data; "
            "try `nvmf discover`, which lists the subsystems that it has");
  EXPECT_EQ(json::parse(explanation(words)->json)["offset"], 256);
  words.connect = "44";
  EXPECT_TRUE(first_of(words).contains("(SQSIZE), byte 44 of the Connect command; try a smaller"));
  for (const char* text : {"", "x", "0x100000000"}) {
    words.connect = text;
    if (*text != '\0') refusal_of(words);
  }
}

}  // namespace
}  // namespace nvmf::tools
