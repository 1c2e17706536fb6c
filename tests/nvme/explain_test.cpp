#include "nvme/explain.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "nvme/status_words.h"

namespace nvmf::nvme {
namespace {

using enum StatusContext;

struct Range {
  unsigned first;
  unsigned last;
};

struct Figure {
  const char* name;
  std::uint8_t sct;
  std::span<const StatusWords> table;
  std::vector<Range> codes;  // as the figure lists them
};

// Base 2.3 §4.2.3, Figures 102 to 107; B6h and B7h are of Zoned Namespace 1.2.
std::vector<Figure> figures() {
  return {{"102", 0, generic_status_words(), {{0x00, 0x16}, {0x18, 0x2c}, {0x80, 0x89}}},
          {"103", 1, command_status_words(), {{0x00, 0x03}, {0x05, 0x16}, {0x18, 0x41}}},
          {"104", 1, io_status_words(), {{0x80, 0x9c}, {0xb6, 0xbf}}},
          {"105", 1, fabrics_status_words(), {{0x80, 0x85}, {0x90, 0x91}}},
          {"106", 2, media_status_words(), {{0x80, 0x88}}},
          {"107", 3, path_status_words(), {{0x00, 0x03}, {0x60, 0x60}, {0x70, 0x71}}}};
}

Status status_of(unsigned sct, unsigned sc) {
  return {static_cast<StatusCode>(sct << 8 | sc)};
}

TEST(StatusWords, EveryNumberOfTheFiguresIsThereOnceAndNoOther) {
  for (const Figure& figure : figures()) {
    std::set<unsigned> expected;
    for (const Range& range : figure.codes) {
      for (unsigned code = range.first; code <= range.last; ++code) expected.insert(code);
    }
    std::vector<unsigned> there;
    for (const StatusWords& row : figure.table) there.push_back(row.code);
    EXPECT_EQ(there, std::vector<unsigned>(expected.begin(), expected.end())) << figure.name;
  }
}

TEST(StatusWords, EveryRowIsWellFormed) {
  std::set<std::string_view> names;
  std::set<std::string_view> symbols;
  for (const Figure& figure : figures()) {
    for (const StatusWords& row : figure.table) {
      SCOPED_TRACE(row.name);
      EXPECT_TRUE(names.insert(row.name).second) << "twice";
      EXPECT_TRUE(row.symbol.empty() || symbols.insert(row.symbol).second) << "twice";
      EXPECT_EQ(row.symbol.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), row.symbol.npos);
      for (const std::string_view text : {row.name, row.meaning, row.hint}) {
        if (text.empty()) continue;
        EXPECT_EQ(text.find_first_of("\n\t\r"), text.npos) << text;
        EXPECT_EQ(text.find("  "), text.npos) << text;
        EXPECT_NE(text.front(), ' ') << text;
        EXPECT_EQ(std::string_view(" .;,:").find(text.back()), text.npos) << text;
      }
      EXPECT_GE(row.meaning.size(), 12U);
      EXPECT_TRUE(row.meaning.front() >= 'a' && row.meaning.front() <= 'z') << row.meaning;
      // Only two say that all is well.
      const bool success = row.name.starts_with("Success");
      EXPECT_EQ(row.hint.empty(), success);
      EXPECT_FALSE(row.hint.starts_with("try")) << "the word is put before it";
    }
  }
}

TEST(StatusWords, EveryStatusCanBeExplained) {
  for (unsigned sct = 0; sct < 8; ++sct) {
    for (unsigned sc = 0; sc < 256; ++sc) {
      const Status status = status_of(sct, sc);
      const auto all = status_meanings(status);
      ASSERT_FALSE(all.empty());
      EXPECT_LE(all.size(), 2U);
      EXPECT_TRUE(all.size() == 1 || (sct == 1 && sc >= 0x80 && sc < 0xc0));
      for (const StatusContext context : {admin, fabrics, nvm}) {
        const auto one = status_meanings(status, context);
        ASSERT_EQ(one.size(), 1U);
        EXPECT_EQ(one[0].name, status_name(status, context));
        const std::string text = explain(status, context);
        EXPECT_TRUE(text.starts_with(describe(status, context) + ": ")) << text;
        EXPECT_TRUE(one[0].hint.empty() || text.contains("; try ")) << text;
        EXPECT_NE(text.back(), '\n');
      }
    }
  }
}

TEST(StatusMeanings, WithoutACommandAllAreListed) {
  const auto conflict = status_meanings(status_of(1, 0x80));
  ASSERT_EQ(conflict.size(), 2U);
  EXPECT_EQ(conflict[0].commands, "I/O");
  EXPECT_EQ(conflict[0].name, "Conflicting Attributes");
  EXPECT_EQ(conflict[1].commands, "fabrics");
  EXPECT_EQ(conflict[1].name, "Incompatible Format");
  const auto restart = status_meanings(status_of(1, 0x90));
  ASSERT_EQ(restart.size(), 2U);
  EXPECT_EQ(restart[0].name, "Invalid Program Type");
  EXPECT_EQ(restart[1].commands, "admin");
  EXPECT_EQ(restart[1].name, "Discover Restart");
  const auto authentication = status_meanings(status_of(1, 0x91));
  ASSERT_EQ(authentication.size(), 2U);
  EXPECT_EQ(authentication[1].commands, "all");
  EXPECT_EQ(authentication[1].name, "Authentication Required");
  ASSERT_EQ(status_meanings(status_of(1, 0x89)).size(), 1U);
  EXPECT_EQ(status_meanings(status_of(0, 0x02)).size(), 1U);
}

TEST(StatusMeanings, ReservedAndVendorsNumbersAreSaidToBeSo) {
  for (const Status status : {status_of(0, 0x17), status_of(0, 0x8a), status_of(1, 0x04),
                              status_of(1, 0x42), status_of(1, 0xa0), status_of(2, 0x00),
                              status_of(3, 0x72), status_of(4, 0), status_of(6, 0xff)}) {
    const auto all = status_meanings(status);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_TRUE(all[0].reserved) << all[0].name;
  }
  for (const Status status : {status_of(0, 0xc0), status_of(1, 0xff), status_of(2, 0xc0),
                              status_of(3, 0xc0), status_of(7, 0)}) {
    EXPECT_TRUE(status_meanings(status)[0].name.starts_with("Vendor Specific"));
    EXPECT_FALSE(status_meanings(status)[0].reserved);
  }
}

TEST(Explain, IsNameMeaningAndHint) {
  EXPECT_EQ(
      explain(Status(StatusCode::invalid_namespace, true), admin),
      "Invalid Namespace or Format (0x00b, do not retry): there is no such namespace for this "
      "host, or its format does not allow the command; try `nvmf list-ns`, which shows the "
      "namespaces that there are");
  EXPECT_EQ(explain(StatusCode::success, admin),
            "Successful Completion (0x000): the command was done");
  EXPECT_EQ(status_hint(StatusCode::success, admin), "");
  EXPECT_EQ(status_hint(StatusCode::command_interrupted, nvm), "try the command again");
}

TEST(Explain, FlagsSayWhetherToTryAgain) {
  EXPECT_TRUE(retry_words({}).empty());
  const auto dnr = retry_words(Status(StatusCode::invalid_field, true));
  ASSERT_EQ(dnr.size(), 1U);
  EXPECT_TRUE(dnr[0].starts_with("Do Not Retry is set: "));
  Status status(StatusCode::namespace_not_ready);
  EXPECT_TRUE(retry_words(status).at(0).starts_with("Do Not Retry is not set: "));
  status.crd = 2;
  status.more = true;
  const RetryDelays delays{1, 35, 65535};
  const auto known = retry_words(status, &delays);
  ASSERT_EQ(known.size(), 2U);
  EXPECT_TRUE(known[0].contains("after 3500 ms (CRDT2)")) << known[0];
  EXPECT_TRUE(known[1].starts_with("More is set: "));
  EXPECT_TRUE(retry_words(status).at(0).contains("CRDT2 of `nvmf id-ctrl`"));
  status.crd = 3;
  EXPECT_TRUE(retry_words(status, &delays).at(0).contains("after 6553500 ms (CRDT3)"));
}

Status with(Status status, bool dnr, bool more = false, std::uint8_t crd = 0) {
  status.dnr = dnr;
  status.more = more;
  status.crd = crd;
  return status;
}

TEST(ParseStatus, ReadsAllThatPeopleHave) {
  struct Case {
    const char* text;
    Status status;
    std::optional<StatusContext> context = {};
  };
  const Status read_error = StatusCode::unrecovered_read_error;
  const Status field(StatusCode::invalid_field, true);
  for (const Case& c : {
           Case{"0x4002", field},
           Case{"16386", field},
           Case{"4002h", field},
           Case{" 0X4002\n", field},
           Case{"(0x4002)", field},
           Case{"NVMe status: Invalid Field in Command: A reserved coded value(0x4002)", field},
           Case{"0x6002", with(field, true, true)},
           Case{"0x1082", with(StatusCode::namespace_not_ready, false, false, 2)},
           Case{"0", {}},
           Case{"0x7fff", with(status_of(7, 0xff), true, true, 3)},
           Case{"2/81h", read_error},
           Case{"2:81", read_error},
           Case{"0x2/0x81", read_error},
           Case{"2h / 81h", read_error},
           Case{"(0x2281)", with(read_error, false, true)},
           Case{"sct 0x2 sc 0x81", read_error},
           Case{"sct 2, sc 81", read_error},
           Case{"SCT=2 SC=81h", read_error},
           Case{"nvme0n1: Read(0x2) @ LBA 0, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) "
                "MORE DNR ",
                with(read_error, true, true)},
           Case{"INVALID_FIELD", StatusCode::invalid_field},
           Case{"invalid field in command", StatusCode::invalid_field},
           Case{"NVME_SC_READ_ERROR", read_error},
           Case{"Connect Invalid Parameters", StatusCode::connect_invalid_parameters, fabrics},
           Case{"BAD_ATTRIBUTES", status_of(1, 0x80), nvm},
           Case{"Invalid Log Page", StatusCode::invalid_log_page, admin},
       }) {
    const auto found = parse_status(c.text);
    ASSERT_TRUE(found) << c.text << ": " << found.error().message;
    EXPECT_EQ(found->status, c.status) << c.text;
    EXPECT_EQ(found->context, c.context) << c.text;
  }
}

TEST(ParseStatus, EveryNameAndSymbolIsFound) {
  for (const Figure& figure : figures()) {
    for (const StatusWords& row : figure.table) {
      for (const std::string_view text : {row.name, row.symbol}) {
        if (text.empty()) continue;
        const auto found = parse_status(text);
        ASSERT_TRUE(found) << text;
        EXPECT_EQ(found->status, status_of(figure.sct, row.code)) << text;
      }
    }
  }
}

TEST(ParseStatus, RefusesTheRestWithASentence) {
  for (const char* text : {"",      " ",          "0x",         "h",
                           "-1",    "0x8000",     "4294967296", "99999999999999999999999",
                           "8/00",  "2/100",      "2/",         "/81",
                           "sct 2", "sct 9 sc 0", "sct sc",     "(0x4002",
                           "()",    "nonsense",   "NVME_SC_",   "0x4002x",
                           "1e3",   "\x1b[2J"}) {
    const auto found = parse_status(text);
    ASSERT_FALSE(found) << text;
    EXPECT_EQ(found.error().code, EINVAL);
    EXPECT_TRUE(found.error().message.contains("try ")) << found.error().message;
    EXPECT_EQ(found.error().message.find('\x1b'), std::string::npos);
  }
  EXPECT_FALSE(parse_status(std::string(100'000, '(')));
  EXPECT_TRUE(parse_status("0x8000").error().message.contains("--cqe"));
}

TEST(ParseStatus, CompletionQueueEntriesHaveThePhaseBelow) {
  // CID 7, phase 1, Invalid Field with DNR.
  const auto found = parse_cqe_status("0x80050007");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->status, Status(StatusCode::invalid_field, true));
  EXPECT_EQ(parse_cqe_status("2147745799")->status, Status(StatusCode::invalid_field, true));
  EXPECT_FALSE(parse_cqe_status("0x100000000"));
  EXPECT_FALSE(parse_cqe_status("invalid_field"));
}

TEST(NvmeCli, NumberIsTheFieldWithoutThePhase) {
  for (unsigned number = 0; number <= 0x7fff; ++number) {
    const Status status = Status::decode(static_cast<std::uint16_t>(number << 1));
    ASSERT_EQ(nvme_cli_status(status), number);
  }
  EXPECT_EQ(nvme_cli_status_line(Status(StatusCode::invalid_field, true)),
            "NVMe status: Invalid Field in Command: A reserved coded value or an unsupported value "
            "in a defined field(0x4002)");
  EXPECT_EQ(nvme_cli_status_line(status_of(0, 0x50)), "NVMe status: unrecognized(0x50)");
  EXPECT_EQ(nvme_cli_status_line(status_of(4, 1)), "NVMe status: Unknown status(0x401)");
  EXPECT_EQ(nvme_cli_status_line(status_of(7, 1)), "NVMe status: Vendor Specific Status(0x701)");
}

}  // namespace
}  // namespace nvmf::nvme
