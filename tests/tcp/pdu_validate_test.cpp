// The table of what a PDU header may say. NVMe/TCP 1.0 §3.1, §3.3, §3.5, §3.6.2.
#include "transport/tcp/pdu_validate.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "nvme/endian.h"

namespace nvmf::tcp {
namespace {

using Header = std::vector<std::byte>;
using Edit = std::function<void(std::byte*)>;

PduRules host_rules(bool hdgst = false, bool ddgst = false, std::uint8_t pda = 0) {
  return {.controller = false, .initialized = true, .hdgst = hdgst, .ddgst = ddgst, .pda = pda};
}
PduRules controller_rules(bool hdgst = false, bool ddgst = false, std::uint8_t pda = 0) {
  return {.controller = true,
          .initialized = true,
          .hdgst = hdgst,
          .ddgst = ddgst,
          .pda = pda,
          .in_capsule_bytes_max = 8192,
          .maxh2cdata_bytes = 4096};
}

Header make(PduType type, std::uint8_t flags, std::size_t hlen, std::uint8_t pdo,
            std::uint32_t plen) {
  Header h(hlen);
  CommonHeader{type, flags, static_cast<std::uint8_t>(hlen), pdo, plen}.encode(h.data());
  return h;
}
Header good_ic_req() {
  Header h(kIcBytes);
  IcReq{}.encode(std::span<std::byte, kIcBytes>(h));
  return h;
}
Header good_ic_resp(bool hdgst = false, bool ddgst = false) {
  Header h(kIcBytes);
  IcResp{.hdgst = hdgst, .ddgst = ddgst, .maxh2cdata_bytes = 131072}.encode(
      std::span<std::byte, kIcBytes>(h));
  return h;
}
Header data(PduType type, std::uint8_t flags, std::uint8_t pdo, std::uint32_t plen,
            std::uint32_t datal) {
  Header h = make(type, flags, kDataHeaderBytes, pdo, plen);
  DataHeader{.datal_bytes = datal}.encode(h.data());
  return h;
}

constexpr PduVerdict ok(std::uint32_t data_bytes = 0) {
  return {PduVerdict::Kind::ok, Fes::none, 0, data_bytes};
}
constexpr PduVerdict field(std::uint32_t offset) {
  return {PduVerdict::Kind::fatal, Fes::invalid_header_field, offset, 0};
}
constexpr PduVerdict fatal(Fes fes, std::uint32_t fei = 0) {
  return {PduVerdict::Kind::fatal, fes, fei, 0};
}
constexpr PduVerdict drop() {
  return {PduVerdict::Kind::drop, Fes::none, 0, 0};
}

struct Row {
  const char* what;
  PduRules rules;
  Header header;
  PduVerdict expected;
};

class Validate : public ::testing::TestWithParam<Row> {};

TEST_P(Validate, Table) {
  const Row& row = GetParam();
  EXPECT_EQ(validate_pdu_header(row.rules, row.header), row.expected) << row.what;
}

Header edited(Header h, const Edit& edit) {
  edit(h.data());
  return h;
}
auto set8(std::size_t at, int v) {
  return [=](std::byte* p) { p[at] = static_cast<std::byte>(v); };
}
auto set32(std::size_t at, std::uint32_t v) {
  return [=](std::byte* p) { store_le32(p + at, v); };
}

std::vector<Row> rows() {
  PduRules fresh_controller = controller_rules();
  fresh_controller.initialized = false;
  PduRules fresh_host = host_rules();
  fresh_host.initialized = false;
  PduRules asked_hdgst = fresh_host;
  asked_hdgst.asked_hdgst = true;
  using enum PduType;
  std::vector<Row> t = {
      {"good ICReq", fresh_controller, good_ic_req(), ok()},
      {"second ICReq", controller_rules(), good_ic_req(), fatal(Fes::pdu_sequence_error)},
      {"capsule before ICReq", fresh_controller, make(capsule_cmd, 0, 72, 0, 72),
       fatal(Fes::pdu_sequence_error)},
      {"ICReq of wrong HLEN", fresh_controller, edited(good_ic_req(), set8(2, 127)), field(2)},
      {"ICReq of wrong PLEN", fresh_controller, edited(good_ic_req(), set32(4, 129)), field(4)},
      {"ICReq of unknown PFV", fresh_controller, edited(good_ic_req(), set8(8, 1)),
       fatal(Fes::unsupported_parameter, 8)},
      {"ICReq HPDA 31", fresh_controller, edited(good_ic_req(), set8(10, 31)), ok()},
      {"ICReq HPDA 32", fresh_controller, edited(good_ic_req(), set8(10, 32)), field(10)},
      {"lowest wrong field first", fresh_controller,
       edited(edited(good_ic_req(), set8(10, 32)), set32(4, 12)), field(4)},
      {"good ICResp", fresh_host, good_ic_resp(), ok()},
      {"ICResp to a controller", fresh_controller, good_ic_resp(), field(0)},
      {"ICReq to a host", fresh_host, good_ic_req(), field(0)},
      {"ICResp of unknown PFV", fresh_host, edited(good_ic_resp(), set8(9, 1)),
       fatal(Fes::unsupported_parameter, 8)},
      {"ICResp CPDA 32", fresh_host, edited(good_ic_resp(), set8(10, 32)), field(10)},
      {"ICResp asks a digest not offered", fresh_host, good_ic_resp(true), field(11)},
      {"ICResp asks the other digest", asked_hdgst, good_ic_resp(true, true), field(11)},
      {"ICResp grants the digest", asked_hdgst, good_ic_resp(true), ok()},
      {"ICResp MAXH2CDATA 4096", fresh_host, edited(good_ic_resp(), set32(12, 4096)), ok()},
      {"ICResp MAXH2CDATA 4092", fresh_host, edited(good_ic_resp(), set32(12, 4092)), field(12)},
      {"ICResp MAXH2CDATA odd", fresh_host, edited(good_ic_resp(), set32(12, 4098)), field(12)},
      {"unknown type 08h", host_rules(), make(static_cast<PduType>(8), 0, 24, 0, 24), field(0)},
      {"unknown type FFh", controller_rules(), make(static_cast<PduType>(0xff), 0, 24, 0, 24),
       field(0)},
      {"TermReq", host_rules(), make(c2h_term_req, 0, 24, 0, 24), ok()},
      {"TermReq with data", host_rules(), make(c2h_term_req, 0, 24, 0, 152), ok(128)},
      {"TermReq too long", host_rules(), make(c2h_term_req, 0, 24, 0, 153), drop()},
      {"TermReq too short", controller_rules(), make(h2c_term_req, 0, 24, 0, 23), drop()},
      {"TermReq before ICResp", fresh_host, make(c2h_term_req, 0, 24, 0, 24), ok()},
      {"TermReq has no digest", host_rules(true), make(c2h_term_req, 0, 24, 0, 24), ok()},
      {"response", host_rules(), make(capsule_resp, 0, 24, 0, 24), ok()},
      {"response without its digest", host_rules(true), make(capsule_resp, 0, 24, 0, 28), field(1)},
      {"response with a digest not agreed", host_rules(), make(capsule_resp, kFlagHdgst, 24, 0, 28),
       field(1)},
      {"response with digest", host_rules(true), make(capsule_resp, kFlagHdgst, 24, 0, 28), ok()},
      {"response with trailing bytes", host_rules(), make(capsule_resp, 0, 24, 0, 25), field(4)},
      {"R2T of wrong HLEN", host_rules(), make(r2t, 0, 28, 0, 28), field(2)},
      {"R2T", host_rules(), make(r2t, 0, 24, 0, 24), ok()},
      {"command", controller_rules(), make(capsule_cmd, 0, 72, 0, 72), ok()},
      {"command cut short", controller_rules(), make(capsule_cmd, 0, 72, 0, 71), field(4)},
      {"command with data", controller_rules(), make(capsule_cmd, 0, 72, 72, 72 + 512), ok(512)},
      {"command with the most data", controller_rules(), make(capsule_cmd, 0, 72, 72, 72 + 8192),
       ok(8192)},
      {"command with too much data", controller_rules(), make(capsule_cmd, 0, 72, 72, 72 + 8196),
       field(4)},
      {"command, data inside the header", controller_rules(), make(capsule_cmd, 0, 72, 68, 600),
       field(3)},
      {"command, data misaligned", controller_rules(false, false, 15),
       make(capsule_cmd, 0, 72, 72, 600), field(3)},
      {"command, CPDA 31", controller_rules(false, false, 31),
       make(capsule_cmd, 0, 72, 128, 128 + 512), ok(512)},
      {"command, data past its PLEN", controller_rules(), make(capsule_cmd, 0, 72, 200, 100),
       field(4)},
      {"command without data needs no data digest", controller_rules(true, true),
       make(capsule_cmd, kFlagHdgst, 72, 0, 76), ok()},
      {"command with data lacks its digest", controller_rules(false, true),
       make(capsule_cmd, 0, 72, 72, 600), field(1)},
      {"command with data and digests", controller_rules(true, true),
       make(capsule_cmd, kFlagHdgst | kFlagDdgst, 72, 76, 76 + 512 + 4), ok(512)},
      {"H2CData", controller_rules(), data(h2c_data, kFlagLast, 24, 24 + 512, 512), ok(512)},
      {"H2CData to a host", host_rules(), data(h2c_data, kFlagLast, 24, 24 + 512, 512), field(0)},
      {"H2CData DATAL not what PLEN says", controller_rules(),
       data(h2c_data, kFlagLast, 24, 24 + 512, 508), field(16)},
      {"H2CData of MAXH2CDATA", controller_rules(), data(h2c_data, 0, 24, 24 + 4096, 4096),
       ok(4096)},
      {"H2CData beyond MAXH2CDATA", controller_rules(), data(h2c_data, 0, 24, 24 + 4100, 4100),
       fatal(Fes::limit_exceeded)},
      {"C2HData", host_rules(), data(c2h_data, 0, 24, 24 + 512, 512), ok(512)},
      {"C2HData empty", host_rules(), data(c2h_data, 0, 24, 24, 0), field(4)},
      {"C2HData SUCCESS without LAST", host_rules(),
       data(c2h_data, kFlagSuccess, 24, 24 + 512, 512), field(1)},
      {"C2HData SUCCESS and LAST", host_rules(),
       data(c2h_data, kFlagSuccess | kFlagLast, 24, 24 + 512, 512), ok(512)},
      {"C2HData with data digest", host_rules(false, true),
       data(c2h_data, kFlagDdgst, 24, 24 + 512 + 4, 512), ok(512)},
      {"C2HData, digest alone", host_rules(false, true), data(c2h_data, kFlagDdgst, 24, 28, 4),
       field(4)},
      {"C2HData, digest not agreed", host_rules(), data(c2h_data, kFlagDdgst, 24, 24 + 516, 512),
       field(1)},
      {"C2HData padded for HPDA 15", host_rules(true, false, 15),
       data(c2h_data, kFlagHdgst, 64, 64 + 512, 512), ok(512)},
      {"C2HData of 4 GiB", host_rules(), data(c2h_data, 0, 24, 0xffffffff, 0xffffffff - 24),
       ok(0xffffffff - 24)},
  };
  return t;
}

INSTANTIATE_TEST_SUITE_P(Rows, Validate, ::testing::ValuesIn(rows()),
                         [](const auto& info) { return "row" + std::to_string(info.index); });

TEST(PduDataOffset, IsTheLeastAlignedOne) {
  EXPECT_EQ(pdu_data_offset(24, false, 0), 24);
  EXPECT_EQ(pdu_data_offset(24, true, 0), 28);
  EXPECT_EQ(pdu_data_offset(24, false, 15), 64);  // Figure 8
  EXPECT_EQ(pdu_data_offset(24, false, 3), 32);   // Figure 9
  EXPECT_EQ(pdu_data_offset(72, true, 31), 128);
}

}  // namespace
}  // namespace nvmf::tcp
