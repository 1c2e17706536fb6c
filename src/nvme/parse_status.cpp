// Statuses as people find them: in logs, in what other tools print, in the specification.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "nvme/explain.h"
#include "nvme/status_words.h"
#include "nvme/text.h"

namespace nvmf::nvme {
namespace {

/// Longer texts hold no status: nvme-cli's longest line has 200 characters.
constexpr std::size_t kTextMax = 512;
constexpr std::uint64_t kCliStatusMax = 0x7fff;
constexpr std::string_view kSymbolPrefix = "nvme_sc_";

constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower);
  return out;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> digits(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

/// "0x81", "81h" and "81": the numbers of SCT and SC are hexadecimal wherever they stand in pairs.
std::optional<std::uint64_t> hexadecimal(std::string_view text) {
  if (text.starts_with("0x")) {
    text.remove_prefix(2);
  } else if (text.ends_with('h')) {
    text.remove_suffix(1);
  }
  return digits(text, 16);
}

std::unexpected<Error> no_status(std::string_view text) {
  return fail(
      fmt::format(
          "\"{}\" is not a status that can be explained: try a number as nvme-cli prints it "
          "(0x4002), type and code (2/81h, or sct 0x2 sc 0x81), a name (INVALID_FIELD) or "
          "an error of the system (ECONNREFUSED)",
          printable(text.substr(0, kTextMax))),
      EINVAL);
}

std::optional<FoundStatus> from_pair(std::optional<std::uint64_t> sct,
                                     std::optional<std::uint64_t> sc) {
  if (!sct || !sc || *sct > 7 || *sc > 0xff) return {};
  return FoundStatus{.status = Status(static_cast<StatusCode>(*sct << 8 | *sc)), .context = {}};
}

std::optional<FoundStatus> from_cli_number(std::uint64_t number) {
  if (number > kCliStatusMax) return {};
  return FoundStatus{.status = Status::decode(static_cast<std::uint16_t>(number << 1)),
                     .context = {}};
}

/// The word after `key`, which stands as a word of its own.
std::optional<std::string_view> word_after(std::string_view text, std::string_view key) {
  const auto separates = [](char c) { return is_space(c) || c == '/' || c == '('; };
  for (std::size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const std::size_t end = at + key.size();
    if (at != 0 && !separates(text[at - 1])) continue;
    if (end < text.size() && !is_space(text[end]) && text[end] != '=' && text[end] != ':') continue;
    std::string_view rest = text.substr(end);
    while (!rest.empty() && (is_space(rest.front()) || rest.front() == '=' || rest.front() == ':'))
      rest.remove_prefix(1);
    const auto* stop = std::ranges::find_if(
        rest, [](char c) { return is_space(c) || c == '/' || c == ')' || c == ','; });
    return rest.substr(0, static_cast<std::size_t>(stop - rest.begin()));
  }
  return {};
}

/// Linux's log: "... (sct 0x2 / sc 0x81) DNR ".
std::optional<FoundStatus> from_kernel_log(std::string_view text) {
  const auto sct = word_after(text, "sct");
  const auto sc = word_after(text, "sc");
  if (!sct || !sc) return {};
  auto found = from_pair(hexadecimal(*sct), hexadecimal(*sc));
  if (!found) return {};
  // After the numbers: a word of the name before them means nothing.
  const std::string_view flags = text.substr(static_cast<std::size_t>(sc->data() - text.data()));
  found->status.dnr = word_after(flags, "dnr").has_value();
  found->status.more = word_after(flags, "more").has_value();
  return found;
}

/// "2/81h", "2:81", "0x2/0x81".
std::optional<FoundStatus> from_type_and_code(std::string_view text) {
  const std::size_t middle = text.find_first_of("/:");
  if (middle == std::string_view::npos) return {};
  auto found = from_pair(hexadecimal(trimmed(text.substr(0, middle))),
                         hexadecimal(trimmed(text.substr(middle + 1))));
  if (found) found->with_flags = false;
  return found;
}

/// "(0x4002)", and nvme-cli's line, which ends so.
std::optional<FoundStatus> from_cli_line(std::string_view text) {
  const std::size_t open = text.rfind('(');
  if (open == std::string_view::npos || !text.ends_with(')')) return {};
  const auto number = parse_number(text.substr(open + 1, text.size() - open - 2));
  return number ? from_cli_number(*number) : std::nullopt;
}

struct NamedTable {
  std::span<const StatusWords> rows;
  std::uint8_t sct;
  std::optional<StatusContext> context;
};

std::optional<FoundStatus> from_name(std::string_view text) {
  if (text.starts_with(kSymbolPrefix)) text.remove_prefix(kSymbolPrefix.size());
  if (text.empty()) return {};
  const NamedTable tables[] = {{generic_status_words(), 0, {}},
                               {command_status_words(), 1, StatusContext::admin},
                               {io_status_words(), 1, StatusContext::nvm},
                               {fabrics_status_words(), 1, StatusContext::fabrics},
                               {media_status_words(), 2, {}},
                               {path_status_words(), 3, {}}};
  for (const NamedTable& table : tables) {
    for (const StatusWords& row : table.rows) {
      if (lowered(row.name) != text && lowered(row.symbol) != text) continue;
      return FoundStatus{
          .status = Status(static_cast<StatusCode>(unsigned{table.sct} << 8 | row.code)),
          .context = table.context,
          .with_flags = false};
    }
  }
  return {};
}

}  // namespace

std::optional<std::uint64_t> parse_number(std::string_view text) {
  const std::string word = lowered(trimmed(text));
  if (word.starts_with("0x") || word.ends_with('h')) return hexadecimal(word);
  return digits(word, 10);
}

Result<FoundStatus> parse_status(std::string_view text) {
  if (text.size() > kTextMax) return no_status(text);
  const std::string word = lowered(trimmed(text));
  if (const auto number = parse_number(word)) {
    if (auto found = from_cli_number(*number)) return *found;
    return fail(
        fmt::format("{} is not a status, which has 15 bits: try --cqe if it is dword 3 of a "
                    "completion queue entry, or --connect if it is dword 0 of one of Connect",
                    word),
        EINVAL);
  }
  for (const auto& parse : {from_name, from_kernel_log, from_type_and_code, from_cli_line}) {
    if (auto found = parse(word)) return *found;
  }
  return no_status(text);
}

Result<FoundStatus> parse_cqe_status(std::string_view text) {
  const auto number = parse_number(text);
  if (!number || *number > UINT32_MAX) {
    return fail(fmt::format("\"{}\" is not dword 3 of a completion queue entry: try its 32 bits as "
                            "a number, such as 0x80040007",
                            printable(text.substr(0, kTextMax))),
                EINVAL);
  }
  return FoundStatus{.status = Status::decode(static_cast<std::uint16_t>(*number >> 16)),
                     .context = {}};
}

}  // namespace nvmf::nvme
