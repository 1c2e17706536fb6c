// What is said of sockets that fail: who, why, and what to try.
#include "io/error_words.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "io/socket_address.h"

namespace nvmf::io {
namespace {

constexpr int kSocketErrors[] = {ECONNREFUSED, EHOSTUNREACH,  ETIMEDOUT,  ECONNRESET, ENETUNREACH,
                                 ENETDOWN,     EADDRNOTAVAIL, EACCES,     EPERM,      EPIPE,
                                 ENOENT,       ECONNABORTED,  EHOSTDOWN,  ENOBUFS,    EMFILE,
                                 ENOMEM,       EAFNOSUPPORT,  EADDRINUSE, EIO,        ENODEV};

void expect_a_sentence(const Error& error, int code) {
  EXPECT_EQ(error.code, code);
  for (const std::string& part :
       {std::string("192.0.2.1:4420"), "(" + std::string(::strerrorname_np(code)) + ")"}) {
    EXPECT_TRUE(error.message.contains(part)) << error.message;
  }
  EXPECT_EQ(error.message.find('\n'), std::string::npos);
  EXPECT_NE(error.message.back(), '.');
}

TEST(SocketErrors, SayWhoWhyAndWhatToTry) {
  for (const int code : kSocketErrors) {
    const Error connect = connect_error("192.0.2.1:4420", code);
    expect_a_sentence(connect, code);
    // An advice, or the question whose answer is one.
    const bool advises = connect.message.contains("try ") || connect.message.ends_with('?') ||
                         connect.message.contains("look at ") ||
                         connect.message.contains("close other connections");
    EXPECT_TRUE(advises) << connect.message;
    const Error stream = stream_error("192.0.2.1:4420", code);
    expect_a_sentence(stream, code);
    EXPECT_TRUE(stream.message.contains("; try ")) << stream.message;
  }
}

TEST(SocketErrors, UnknownOnesAreStillSentences) {
  const Error error = connect_error("192.0.2.1:4420", 4000);
  EXPECT_TRUE(error.message.contains("(4000)")) << error.message;
  EXPECT_EQ(try_words(4000), "");
  EXPECT_EQ(try_words(EMFILE), "; try a larger `ulimit -n`");
}

}  // namespace
}  // namespace nvmf::io
