#include "transport/tcp/term_words.h"

#include <gtest/gtest.h>

#include <array>

namespace nvmf::tcp {
namespace {

// NVMe/TCP 1.0 §3.6.2, Figures 20 to 28.
TEST(PduField, NamesWhatLiesAtAnOffset) {
  EXPECT_EQ(pdu_field(PduType::ic_req, 0), "PDU-Type");
  EXPECT_EQ(pdu_field(PduType::r2t, 7), "PLEN");
  EXPECT_EQ(pdu_field(PduType::ic_req, 12), "MAXR2T");
  EXPECT_EQ(pdu_field(PduType::ic_resp, 12), "MAXH2CDATA");
  EXPECT_EQ(pdu_field(PduType::ic_resp, 16), "");
  EXPECT_EQ(pdu_field(PduType::c2h_term_req, 10), "FEI");
  EXPECT_EQ(pdu_field(PduType::capsule_cmd, 32), "SGL1 of the command");
  EXPECT_EQ(pdu_field(PduType::capsule_cmd, 71), "CDW15 of the command");
  EXPECT_EQ(pdu_field(PduType::capsule_cmd, 72), "");
  EXPECT_EQ(pdu_field(PduType::capsule_resp, 20), "CID of the completion");
  EXPECT_EQ(pdu_field(PduType::h2c_data, 10), "TTAG");
  EXPECT_EQ(pdu_field(PduType::c2h_data, 10), "");
  EXPECT_EQ(pdu_field(PduType::r2t, 16), "R2TL");
  EXPECT_EQ(pdu_field(static_cast<PduType>(0xff), 8), "");
  EXPECT_EQ(pdu_field(PduType::r2t, 0xffffffff), "");
}

TEST(DescribeTermReq, SaysOfWhichFieldItSpeaks) {
  const std::array<std::byte, 1> r2t{std::byte{0x09}};
  EXPECT_EQ(describe_term_req(Fes::invalid_header_field, 8, true, r2t, "our"),
            "Invalid PDU Header Field (FES 1, field offset 8) in CCCID of our R2T PDU");
  EXPECT_EQ(describe_term_req(Fes::invalid_header_field, 23, true, r2t, "its"),
            "Invalid PDU Header Field (FES 1, field offset 23) in its R2T PDU");
  EXPECT_EQ(describe_term_req(Fes::pdu_sequence_error, 8, true, r2t, "its"),
            "PDU Sequence Error (FES 2) in its R2T PDU");
  EXPECT_EQ(describe_term_req(Fes::limit_exceeded, 0, true, {}, "our"),
            "R2T Limit Exceeded (FES 5) in our PDUs");
  for (unsigned type = 0; type < 256; ++type) {
    const std::array<std::byte, 1> header{static_cast<std::byte>(type)};
    for (unsigned fes = 0; fes < 9; ++fes) {
      for (const std::uint32_t fei : {0U, 8U, 127U, 0xffffffffU}) {
        EXPECT_TRUE(
            describe_term_req(static_cast<Fes>(fes), fei, false, header, "its").ends_with(" PDU"));
      }
    }
  }
}

TEST(FesWords, EachHasAMeaningAndAHint) {
  for (unsigned fes = 0; fes < 9; ++fes) {
    EXPECT_EQ(known_fes(fes), fes >= 1 && fes <= 6);
    for (const bool from_host : {false, true}) {
      const FesWords words = fes_words(static_cast<Fes>(fes), from_host);
      EXPECT_FALSE(words.meaning.empty());
      EXPECT_FALSE(words.hint.empty());
      EXPECT_FALSE(words.hint.starts_with("try"));
    }
  }
}

}  // namespace
}  // namespace nvmf::tcp
